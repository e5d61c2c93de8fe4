"""``python -m recyclelora.import_checkpoint``."""

from recyclelora.commands.import_checkpoint import main

if __name__ == "__main__":
    main()
