"""Do the tests of the scientific core notice a mistake? Mutation testing. Writes mutants.json.

    python benchmarks/mutants.py                        # 320 mutants, about half an hour on two cores
    python benchmarks/mutants.py --only metrics.py --mutants 30 --output /tmp/mutants.json

Each mutant is the source with one mistake: a comparison, an operator, a constant, a sign, ``min`` for ``max``, ``mean``
for ``sum``, ``and`` for ``or``. It is killed when one of the tests of that file fails, or does not end. A survivor is a
mistake that no test would notice, or no mistake: a tolerance, a bound on time, what is equal in any case.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
LONGEST = 150.0
"""Seconds of one mutant's tests, which take a tenth of it."""
CORE = {
    "adapters/linalg/pivoting.py": "adapters/test_rrqr.py adapters/test_strong.py",
    "adapters/linalg/rrqr.py": "adapters/test_rrqr.py adapters/test_init.py adapters/test_strong.py",
    "adapters/linalg/strong.py": "adapters/test_strong.py",
    "adapters/linalg/svd.py": "adapters/test_svd.py adapters/test_init.py",
    "adapters/low_rank/init_qr.py": "adapters/test_init.py",
    "adapters/low_rank/init_svd.py": "adapters/test_init.py",
    "adapters/low_rank/init_data.py": "adapters/test_init_data.py",
    "adapters/low_rank/factors.py": "adapters/test_init.py adapters/test_low_rank.py",
    "adapters/low_rank/fused.py": "adapters/test_low_rank.py adapters/test_low_rank_gradients.py",
    "adapters/low_rank/layer.py": "adapters/test_low_rank*.py adapters/test_inject.py",
    "adapters/low_rank/ranks.py": "adapters/test_low_rank.py adapters/test_init_data.py",
    "adapters/dora.py": "adapters/test_dora.py",
    "adapters/vera.py": "adapters/test_vera.py",
    "adapters/adalora.py": "adapters/test_adalora.py",
    "adapters/rank_budget.py": "adapters/test_adalora.py",
    "adapters/fixed_directions.py": "adapters/test_fixed_directions.py",
    "adapters/products/kasa.py": "adapters/test_products.py",
    "adapters/products/hira.py": "adapters/test_products.py",
    "adapters/products/delora.py": "adapters/test_products.py",
    "adapters/tokens/rein.py": "adapters/test_rein.py",
    "adapters/tokens/spectral.py": "adapters/test_spectral.py",
    "adapters/calibration/statistics.py": "adapters/test_calibration.py adapters/test_init_data.py",
    "adapters/subspaces.py": "adapters/test_subspaces.py",
    "adapters/changes.py": "adapters/test_changes.py",
    "adapters/analysis.py": "adapters/test_analysis.py",
    "evaluation/metrics.py": "evaluation/test_metrics.py",
    "evaluation/pixel_metrics.py": "evaluation/test_pixel_metrics.py",
    "evaluation/image_counts.py": "evaluation/test_image_counts.py",
    "evaluation/tta.py": "evaluation/test_test_time.py",
    "reports/statistics.py": "reports/test_statistics.py",
    "reports/bootstrap.py": "reports/test_statistics.py reports/test_comparison.py",
    "sweep/race/anytime.py": "sweep/test_anytime.py",
    "sweep/race/rules.py": "sweep/test_race.py",
    "sweep/rungs.py": "sweep/test_rungs.py",
    "sweep/per_second.py": "sweep/test_per_second.py",
    "models/losses/geco.py": "models/losses",
    "models/losses/orthogonality.py": "models/losses",
    "models/losses/style_consistency.py": "models/losses",
    "models/decoders/linear.py": "models/decoders/test_convolutional.py",
    "models/decoders/matching.py": "models/decoders/test_matching.py",
    "models/decoders/mask_loss.py": "models/decoders/test_mask_loss.py",
    "models/decoders/pixel_loss.py": "models/decoders/test_pixel_loss.py",
    "models/decoders/points.py": "models/decoders/test_points.py models/decoders/test_mask_loss.py",
    "training/schedule.py": "training/test_optimizer.py training/test_backbone_rates.py",
    "training/average.py": "training/test_average.py",
    "data/transforms.py": "data/test_transforms.py",
    "data/photometric.py": "data/test_photometric.py",
    "data/mixing.py": "data/test_mixing.py",
}
"""File of the package -> its tests."""

SWAPPED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*",
    ast.Pow: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.And: "or", ast.Or: "and",
}  # fmt: skip
RENAMED = {
    "min": "max", "max": "min", "mean": "sum", "sum": "mean", "argmin": "argmax", "argmax": "argmin", "amin": "amax",
    "amax": "amin", "minimum": "maximum", "maximum": "minimum", "cos": "sin", "sin": "cos", "any": "all", "all": "any",
    "zeros": "ones", "ones": "zeros", "floor": "ceil", "ceil": "floor", "triu": "tril", "tril": "triu",
}  # fmt: skip

PLACE = Path()
Span = Callable[[ast.AST], tuple[int, int]]


@dataclass(frozen=True)
class Mutant:
    """One mistake in one file."""

    file: str
    line: int
    was: str
    is_now: str
    text: str
    """the whole file"""


def mutants(file: str) -> Iterator[Mutant]:
    """Every mutant of a file: nothing in annotations, messages or what the checks of options allow."""
    source = (ROOT / "src/recyclelora" / file).read_text()
    tree = ast.parse(source)
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    raw = source.encode()

    def span(node: ast.AST) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    left_out = {id(part) for node in ast.walk(tree) for whole in _no_arithmetic(node) for part in ast.walk(whole)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        for begin, end, new in _changes(node, span, raw):
            was = raw[begin:end].decode()
            text = (raw[:begin] + new.encode() + raw[end:]).decode()
            yield Mutant(file, raw[:begin].count(b"\n") + 1, was.strip(), new.strip(), text)


def _no_arithmetic(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    if isinstance(node, ast.FunctionDef):
        if node.returns is not None:
            yield node.returns
        if node.name in ("check", "extra_repr", "__repr__"):
            yield node
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        yield node


def _changes(node: ast.AST, span: Span, raw: bytes) -> Iterator[tuple[int, int, str]]:
    """(Begin, end, new text) of the mistakes that one node can have."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield _swapped(node.left, node.ops[0], node.comparators[0], span, raw)
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield _swapped(node.left, node.op, node.right, span, raw)
    elif isinstance(node, ast.BoolOp):
        yield _swapped(node.values[0], node.op, node.values[1], span, raw)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        begin = span(node)[0]
        yield (begin, begin + 1, "+") if isinstance(node.op, ast.USub) else (begin, begin + 3, "not not")
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield *span(node), str(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield *span(node), str(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield *span(node), repr(node.value * 2 or 1.0)
    elif isinstance(node, ast.Attribute) and node.attr in RENAMED:
        yield span(node)[1] - len(node.attr), span(node)[1], RENAMED[node.attr]
    elif isinstance(node, ast.Name) and node.id in ("min", "max", "any", "all") and isinstance(node.ctx, ast.Load):
        yield *span(node), RENAMED[node.id]


def _swapped(left: ast.AST, operator: ast.AST, right: ast.AST, span: Span, raw: bytes) -> tuple[int, int, str]:
    """Another operator between two operands; brackets and line ends stay."""
    begin, end = span(left)[1], span(right)[0]
    text = raw[begin:end].decode()
    before = text[: len(text) - len(text.lstrip(" )\n"))]
    after = text[len(text.rstrip(" (\n")) :]
    return begin, end, f"{before or ' '}{SWAPPED[type(operator)]}{after or ' '}"


def verdict(mutant: Mutant, place: Path) -> str:
    """``killed``, ``timed out`` or ``survived``: tests of a copy of the source, in a fork of this process."""
    target = place / "src/recyclelora" / mutant.file
    sound = target.read_text()
    target.write_text(mutant.text)
    try:
        process = os.fork()
        if process == 0:
            _test(mutant.file, place)
        end = time.monotonic() + LONGEST
        while time.monotonic() < end:
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
            time.sleep(0.05)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return "timed out"
    finally:
        target.write_text(sound)


def _test(file: str, place: Path) -> None:
    os.setpgid(0, 0)
    os.chdir(place)
    sys.path[:0] = [str(place / "src"), str(place)]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(io.StringIO()):
        code = pytest.main(
            ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu and not weights",
             *(str(found) for name in CORE[file].split() for found in sorted(Path("tests").glob(name)))]
        )  # fmt: skip
    os._exit(int(code))


def _settle(folder: Path) -> None:
    """Give a worker a copy of the sources of its own."""
    global PLACE
    PLACE = folder / str(os.getpid())
    for part in ("src", "tests", "conf", "sweeps"):
        shutil.copytree(ROOT / part, PLACE / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(ROOT / "pyproject.toml", PLACE)


def _judged(mutant: Mutant) -> tuple[Mutant, str]:
    return mutant, verdict(mutant, PLACE)


def main() -> None:
    """Draw mutants, test them and write what became of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutants", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="files with this in their names")
    parser.add_argument("--output", type=Path, default=HERE.with_suffix(".json"))
    given = parser.parse_args()
    sys.dont_write_bytecode = True
    for name in ("pytest", "scipy.linalg", "scipy.stats", "sklearn", "timm", "peft"):  # forks begin with them
        import_module(name)
    torch.set_num_threads(1)
    every = [m for file in CORE if given.only in file for m in mutants(file)]
    chosen = random.Random(given.seed).sample(every, min(given.mutants, len(every)))
    unchanged = [
        Mutant(file, 0, "", "", (ROOT / "src/recyclelora" / file).read_text())
        for file in sorted({m.file for m in chosen})
    ]
    results: dict[str, list[Mutant]] = {"killed": [], "timed out": [], "survived": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        get_context("fork").Pool(given.jobs, _settle, (Path(folder),)) as pool,
    ):
        for sound, found in pool.imap_unordered(_judged, unchanged):  # what fails anyway would kill every mutant
            assert found == "survived", f"{sound.file}: its tests fail unchanged"
        for number, (mutant, found) in enumerate(pool.imap_unordered(_judged, chosen), 1):
            results[found].append(mutant)
            change = f"{mutant.was} -> {mutant.is_now}"
            print(f"{number}/{len(chosen)} {found}: {mutant.file}:{mutant.line} {change}", flush=True)
    survivors = sorted(results["survived"], key=lambda m: (m.file, m.line))
    found = {
        "of": len(every), "drawn": len(chosen), "seed": given.seed,
        **{name: len(some) for name, some in results.items()},
        "survivors": [{k: v for k, v in asdict(m).items() if k != "text"} for m in survivors],
    }  # fmt: skip
    given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
