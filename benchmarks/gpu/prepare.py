"""Fill .gpu/ with what benchmarks/gpu/run.sh needs on a machine without a network: wheels and pretrained weights.

python benchmarks/gpu/prepare.py                     # here, with a network; then carry .gpu/ along with the tree
python benchmarks/gpu/prepare.py --python 3.11       # for another Python there

Wheels are those of packages.txt at the versions and hashes of requirements/lock.txt; the weights of
backbone=dinov2_small are stored in half precision. Git ignores the folder.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from recyclelora.models.backbones.layouts import own_layout
from recyclelora.models.backbones.weights import find_weights, read_weights

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ROOT / ".gpu"
PLATFORMS = ("2_28", "2_27", "2_17")
MOST_WHEELS, MOST = 15 * 2**20, 64 * 2**20
"""Bytes."""


def locked(names: list[str], lock: str) -> str:
    """The entries of some packages in a lock with hashes.

    Raises:
        SystemExit: a package is not in it.
    """
    entries = re.split(r"\n(?=\S)", lock)
    found = {re.split(r"[=\[ ;]", entry)[0].lower(): entry for entry in entries}
    missing = [name for name in names if name not in found]
    if missing:
        raise SystemExit(f"packages.txt: not in requirements/lock.txt: {', '.join(missing)}")
    return "\n".join(found[name].rstrip() for name in names) + "\n"


def fetch_wheels(python: str) -> None:
    """Download the wheels and keep the requirements that they were checked against."""
    lines = (Path(__file__).with_name("packages.txt")).read_text().splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    requirements = CARRIED / "requirements.txt"
    requirements.write_text(locked(names, (ROOT / "requirements/lock.txt").read_text()))
    wheels = CARRIED / "wheels"
    for old in wheels.glob("*.whl"):  # of another Python, or of an older lock
        old.unlink()
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in PLATFORMS]
    platforms.append("--platform=manylinux2014_x86_64")
    asked = ["--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", f"--python-version={python}"]
    command = [sys.executable, "-m", "pip", "download", *asked, "--implementation=cp", *platforms]
    subprocess.run([*command, f"--dest={wheels}", "-r", str(requirements)], check=True)


def store_weights() -> None:
    """The weights of backbone=dinov2_small in half precision: 43 MB instead of 88."""
    tensors = own_layout(read_weights(find_weights("dinov2_small", None, None)))
    half = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(half, CARRIED / "dinov2_small.safetensors")


def size(*paths: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="version there")
    options = parser.parse_args()
    CARRIED.mkdir(exist_ok=True)
    fetch_wheels(options.python)
    store_weights()
    wheels = size(*(CARRIED / "wheels").iterdir())
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tree = size(*(path for name in tracked.split("\0") if name and (path := ROOT / name).is_file()))
    whole = tree + size(*(path for path in CARRIED.rglob("*") if path.is_file()))
    print(f"{wheels / 2**20:.1f} MiB of wheels; {whole / 2**20:.1f} MiB with the weights and the tree")
    if wheels > MOST_WHEELS or whole > MOST:
        raise SystemExit(f"more than {MOST_WHEELS >> 20} MiB of wheels or {MOST >> 20} MiB in all")


if __name__ == "__main__":
    main()
