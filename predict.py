"""Segment unlabelled images with a finished run: python predict.py run=<run dir> input=<folder or images>."""

import installed as installed
from recyclelora.commands.predict import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
