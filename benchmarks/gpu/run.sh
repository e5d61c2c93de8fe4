#!/usr/bin/env bash
# Everything that is to be known from a GPU, with one command, in less than nine minutes and without a network.
#
#   bash benchmarks/gpu/run.sh [FOLDER]         # writes FOLDER/results.json and log.txt; by default outputs/gpu
#   bash benchmarks/gpu/run.sh --dry [FOLDER]   # all of it on the CPU in miniature
#
# What the machine lacks comes from .gpu/, which `python benchmarks/gpu/prepare.py` makes. README.md tells the rest.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [[ " $* " != *" --dry "* && -d .gpu/wheels ]]; then
  site=$(mktemp -d)
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --require-hashes \
    --find-links .gpu/wheels --requirement .gpu/requirements.txt --target "$site" \
    || echo "the carried wheels do not fit $("$python" --version); going on without them" >&2
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec "$python" benchmarks/gpu/run.py "$@"
