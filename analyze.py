"""See what training did to the backbone of one run, or of several: python analyze.py run=<run dir>."""

import installed as installed
from recyclelora.commands.analyze import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
