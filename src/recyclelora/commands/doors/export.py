"""``python -m recyclelora.export``."""

from recyclelora.commands.export import main

if __name__ == "__main__":
    main()
