"""The tests that need a GPU: how many pass, and which do not. The dry mode only collects them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree  # of a file that this script has just had written
from pathlib import Path

from common import ROOT, Figures, options


def files() -> list[str]:
    """The test files that hold any: the others may need packages that are not here."""
    found = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text()]
    return [str(path.relative_to(ROOT)) for path in sorted(found)]


def main() -> None:
    given = options(__doc__)
    figures = Figures(given.output)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", *files()]
        more = ["--collect-only", "-q"] if given.dry else ["-v", "--tb=short", f"--junitxml={report}"]
        code = subprocess.run([*command, *more], cwd=ROOT).returncode
        if given.dry:
            figures.add(collected=code == 0)
            sys.exit(code)
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = {kind: [c.get("name") for c in cases if c.find(kind) is not None] for kind in ("failure", "error", "skipped")}
    figures.add(passed=len(cases) - sum(map(len, bad.values())), **bad)
    sys.exit(code)


if __name__ == "__main__":
    main()
