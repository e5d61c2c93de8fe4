"""Find every defect of the data before training: python inspect_data.py data=gta2city."""

import installed as installed
from recyclelora.commands.inspect_data import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
