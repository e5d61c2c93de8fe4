"""``python -m recyclelora.reports <sweep>``: keeps the page of a running sweep fresh; the driver starts it."""

import sys
from pathlib import Path

from recyclelora.reports.live import follow

if __name__ == "__main__":
    follow(Path(sys.argv[1]))
