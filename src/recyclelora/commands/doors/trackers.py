"""``python -m recyclelora.trackers follow|sync <tracker> <run dir> ...``."""

import sys

from recyclelora.commands.track import main

if __name__ == "__main__":
    sys.argv[2:] = ["--tracker", *sys.argv[2:]]
    main()
