"""Imported first by the scripts beside it: one line instead of a traceback where this Python has no recyclelora."""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("recyclelora") is None:
    venv = Path(__file__).with_name(".venv")
    there = venv.is_dir() and venv.resolve() != Path(sys.prefix).resolve()
    cure = "`source .venv/bin/activate`" if there else "`make install`, then `source .venv/bin/activate`"
    print(f"{Path(sys.argv[0]).name}: {sys.executable} has no recyclelora: {cure}", file=sys.stderr)
    sys.exit(2)
