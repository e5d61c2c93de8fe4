"""Packages that an extra of this project brings, for those who want what needs them."""

from __future__ import annotations

import importlib.util

from recyclelora.system.errors import UserError


def require(what: str, extra: str, *packages: str) -> None:
    """Go on only if all packages are installed; nothing is imported.

    Raises:
        UserError: one is not; says which of the project's extras brings it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{what} needs the package {package}: pip install 'recyclelora[{extra}]'")
