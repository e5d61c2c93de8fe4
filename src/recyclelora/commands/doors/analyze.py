"""``python -m recyclelora.analyze``."""

from recyclelora.commands.analyze import main

if __name__ == "__main__":
    main()
