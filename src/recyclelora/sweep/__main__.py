"""``python -m recyclelora.sweep``."""

from recyclelora.commands.sweep import main

if __name__ == "__main__":
    main()
