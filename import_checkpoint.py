"""Make a run of a released checkpoint: python import_checkpoint.py checkpoint=<file.pth> kind=rein|soma|recyclelora"""

import installed as installed
from recyclelora.commands.import_checkpoint import main

if __name__ == "__main__":  # as a script with @hydra.main, for Hydra's tab completion
    main()
