"""``python -m recyclelora.prepare``."""

from recyclelora.commands.prepare import main

if __name__ == "__main__":
    main()
