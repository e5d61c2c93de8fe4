"""``python -m recyclelora.trackers``."""

from recyclelora.tracking.trackers import main

if __name__ == "__main__":
    main()
