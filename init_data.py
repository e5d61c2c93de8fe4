"""Describe a folder of images and masks: python init_data.py photos/."""

import installed as installed
from recyclelora.commands.init_data import main

if __name__ == "__main__":
    main()
