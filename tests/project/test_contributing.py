"""CONTRIBUTING.md names what is there."""

import re
from pathlib import Path

from recyclelora.config.compose import home


def test_the_places_that_it_names_exist():
    part = (home() / "CONTRIBUTING.md").read_text().split("## Where is ...?")[1].split("\n## ")[0]
    rows = [row for row in part.splitlines() if row.startswith("| ") and "/" in row.replace("src/recyclelora/", "")]
    assert len(rows) > 10
    for row in rows:
        folder = Path()
        for name in re.findall(
            r"`([\w/*<>]+(?:\.py|\.yaml|/))`", row.replace("<family>", "*").replace("<command>", "*")
        ):
            folder = Path(name).parent if "/" in name.rstrip("/") else folder
            roots = (home(), home() / "src/recyclelora")
            assert any(True for root in roots for _ in root.glob(str(folder / Path(name).name))), (name, row)
