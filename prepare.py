"""Fetch and compute everything a run needs, so that jobs can run offline: python prepare.py data=... backbone=..."""

import installed as installed
from recyclelora.commands.prepare import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
