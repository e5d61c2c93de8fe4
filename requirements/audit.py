"""Known vulnerabilities of the locked packages, by pip-audit; says plainly when no database could be asked.

    .venv/bin/python requirements/audit.py

Exit code 1: a vulnerability, or packages that the database does not know although it knows others. 0: none, or nothing
could be asked (no network, a mirror without the database): that is a warning and no clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("lock.txt")


def main() -> int:
    """Run pip-audit on the lock and judge its report."""
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCK), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"WARNING: not audited: the database of vulnerabilities could not be reached ({reason})")
        return 0
    return verdict(json.loads(done.stdout)["dependencies"])


def verdict(packages: list[dict]) -> int:
    """Print what was found and return the exit code."""
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    bad = [p for p in packages if p.get("vulns")]
    if len(unknown) == len(packages):
        print(f"WARNING: not audited: the database answered for none of {len(packages)} packages; run this elsewhere")
        return 0
    for package in bad:
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "none yet"
            print(f"{package['name']} {package['version']}: {found['id']}; fixed in: {fixed}")
    if unknown:
        print(f"the database does not know: {', '.join(unknown)}")
    print(f"{len(packages) - len(unknown)} of {len(packages)} packages audited, {len(bad)} with known vulnerabilities")
    return 1 if bad or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
