"""Repeat a finished run from its directory and compare: python repeat.py run=outputs/runs/<run>."""

import installed as installed
from recyclelora.commands.repeat import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
