"""``python -m recyclelora.cache``."""

from recyclelora.system.cache import main

if __name__ == "__main__":
    main()
