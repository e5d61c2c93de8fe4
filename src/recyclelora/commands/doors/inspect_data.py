"""``python -m recyclelora.inspect_data``."""

from recyclelora.commands.inspect_data import main

if __name__ == "__main__":
    main()
