"""Compare the runs of a sweep, or any runs: python report.py sweep=<sweep dir>."""

import installed as installed
from recyclelora.commands.report import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
