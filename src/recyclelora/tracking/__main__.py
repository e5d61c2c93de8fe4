"""``python -m recyclelora.tracking``."""

from recyclelora.commands.track import main

if __name__ == "__main__":
    main()
