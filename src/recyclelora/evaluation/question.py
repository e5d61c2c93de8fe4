"""What an evaluation of a finished run asks: two with the same identity have the same answer."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recyclelora.data.config import DataConfig
from recyclelora.data.datasets import Dataset, digest
from recyclelora.data.identity import content_digest, state_on_disk
from recyclelora.evaluation.load import TrainedModel
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.runs.identity import evaluation_identity
from recyclelora.runs.record import code_digest


@dataclass(frozen=True)
class Question:
    """What an evaluation asks of a model; whatever changes the answer changes its identity."""

    model: TrainedModel
    data: DataConfig
    scored: dict[str, Dataset]
    precision: str
    """``32-true``, ``bf16-mixed`` or ``16-mixed``"""

    @functools.cached_property
    def contents(self) -> dict[str, str]:
        """Digest of every scored set: its files, and how they are read."""
        return {name: content_digest(dataset) for name, dataset in self.scored.items()}

    @property
    def root(self) -> str:
        """Where the data lie."""
        given = self.data.root if self.data.folder is None else self.data.folder.root
        return str(Path(given).expanduser().absolute())

    @functools.cached_property
    def identity(self) -> str:
        """64 hex digits."""
        return self._identity(self.contents | {"place of the data": self.root})

    def name(self, checkpoint: str) -> str:
        """Of its files: readable, and another one for every other question."""
        return f"{self.data.name}-{self.data.protocol.name}-{checkpoint}-{self.identity[:12]}"

    def kept(self, folder: Path, name: str, batch_size: int) -> PartialCounts:
        """The counts of one set that are kept while the scoring is not done.

        They are not used any more when the code or the time of a file has changed.
        """
        key = f"{self._identity({name: self.contents[name]})} {state_on_disk(self.scored[name])} {code_digest()}"
        return PartialCounts(folder / f"{name}.json", f"{key} {batch_size}")

    def to_json(self) -> dict[str, Any]:
        """What an answer's file tells of its question."""
        return {
            "data": self.data.name,
            "protocol": self.data.protocol.name,
            "protocol_settings": dataclasses.asdict(self.data.protocol),
            "datasets": {
                config.label: dataclasses.asdict(config)
                for config in self.data.targets
            } | ({"source_val": dataclasses.asdict(self.data.source_val)} if "source_val" in self.scored else {}),
            "classes": self.data.classes.names,
            "dataset_digest": digest(list(self.scored.values())),
            "scored_digests": self.contents,
            "root": self.root,
            "precision": self.precision,
            "trained_sha256": self.model.weights_sha256,
            "identity": self.identity,
        }  # fmt: skip

    def _identity(self, sets: dict[str, str]) -> str:
        protocol = dataclasses.asdict(self.data.protocol)
        return evaluation_identity(self.model.weights_sha256, sets, protocol, self.data.classes.names, self.precision)
