"""``python -m recyclelora.evaluate``."""

from recyclelora.commands.evaluate import main

if __name__ == "__main__":
    main()
