"""``python -m recyclelora.repeat``."""

from recyclelora.commands.repeat import main

if __name__ == "__main__":
    main()
