#!/bin/sh
# What can be checked of the container files without a Docker engine: docker/check.sh .venv/bin
set -eu
BIN=$1
cd "$(dirname "$0")/.."
"$BIN/hadolint" docker/Dockerfile
"$BIN/python" -m pytest -q tests/project/test_docker.py -m ''
if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    echo "not run: the steps of the image in a Debian root (needs root and debootstrap)"
    exit 0
fi
ROOT=$(mktemp -d)/root
trap 'rm -rf "$(dirname "$ROOT")"' EXIT
# shellcheck disable=SC2086  # several options
python3 docker/steps.py --root "$ROOT" ${STEPS_OPTIONS:-} --then 'recyclelora-train experiment=demo tracking=none'
