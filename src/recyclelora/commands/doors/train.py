"""``python -m recyclelora.train``."""

from recyclelora.commands.train import main

if __name__ == "__main__":
    main()
