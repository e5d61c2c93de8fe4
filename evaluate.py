"""Score a finished run again, also on other targets: python evaluate.py run=<run dir> data=city2acdc."""

import installed as installed
from recyclelora.commands.evaluate import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
