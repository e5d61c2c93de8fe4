"""``python -m recyclelora.predict``."""

from recyclelora.commands.predict import main

if __name__ == "__main__":
    main()
