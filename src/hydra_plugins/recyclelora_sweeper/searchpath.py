"""Shipped option files and those of installed packages are found from every primary config.

As ``hydra.searchpath`` of ``train.yaml`` they would be found from that file alone: Hydra reads the key nowhere else,
and a user's own ``hydra.searchpath`` would replace it.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from recyclelora.config.compose import option_folders


class RecycleLoraSearchPath(SearchPathPlugin):
    """Adds the folders behind those that the command was given."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append what is not there yet."""
        known = {_url(element.path) for element in search_path.get_path()}
        for folder in option_folders(known):
            if folder not in known:
                search_path.append("recyclelora", folder)


def _url(path: str) -> str:
    return path if "://" in path else f"file://{path}"
