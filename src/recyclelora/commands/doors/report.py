"""``python -m recyclelora.report``."""

from recyclelora.commands.report import main

if __name__ == "__main__":
    main()
