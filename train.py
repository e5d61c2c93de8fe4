"""Train one segmenter, or many with -m: python train.py adapter=recyclelora data=gta2city."""

import installed as installed
from recyclelora.commands.train import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
