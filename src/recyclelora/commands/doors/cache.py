"""``python -m recyclelora.cache``."""

from recyclelora.commands.cache import main

if __name__ == "__main__":
    main()
