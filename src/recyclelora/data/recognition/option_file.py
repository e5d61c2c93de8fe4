"""The option file of ``data`` that describes a folder, for its owner to check, and a picture beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recyclelora.data.classes import distinct_colours
from recyclelora.data.headers import read_headers
from recyclelora.data.labels import IGNORE
from recyclelora.data.recognition.coding import GUESSED, Coding
from recyclelora.data.recognition.layout import Layout, Split
from recyclelora.drawing.sheets import ClassColours

SMALL = (256, 448)
"""Short edges that `data/augment=small` trains on."""

SHOWN = [352, 1056]
"""Short and long edge at which larger or smaller images are scored, in the middle of these."""


@dataclass(frozen=True)
class Described:
    """A folder that was looked at."""

    name: str
    root: Path
    layout: Layout
    coding: Coding
    short_edges: list[int]
    """of the images whose headers can be read, ascending"""

    @classmethod
    def of(cls, name: str, root: Path, layout: Layout, coding: Coding) -> Described:
        """With the sizes of all images."""
        headers = read_headers([image for split in layout.splits for image, _ in split.pairs])
        return cls(name, root, layout, coding, sorted(min(h.size) for h in headers if h is not None))

    @property
    def fit(self) -> bool:
        """Whether images are to be shown to the model in another size than their own."""
        return not self.short_edges or not SMALL[0] <= self.short_edges[len(self.short_edges) // 2] <= SMALL[1]

    @property
    def colours(self) -> ClassColours:
        """For pictures."""
        names = self.coding.names
        return ClassColours(names, self.coding.colours or distinct_colours(len(names)))


def as_yaml(found: Described, check: str) -> str:
    """The option file.

    Args:
        found: what was seen
        check: the command that inspects it, for its head
    """
    coding, layout = found.coding, found.layout
    tests = [split for split in layout.splits if split.name not in ("train", "val")]
    scored = [split for split in tests if split.masks is not None]
    lines = [
        f"# Written by recyclelora init-data from {coding.looked_at} masks. Check names and meanings, then:",
        f"# {check}",
        "defaults: [folder, override augment: small, override protocol: whole, _self_]",
        f"name: {_text(found.name)}",
        "classes:",
        f"  names:    # {coding.found_in}",
        *(f"    - {_text(name)}" for name in coding.names),
        f"  colours: {[list(c) for c in coding.colours] if coding.colours else '[]    # [] has different ones made'}",
        "folder:",
        f"  root: {_text(str(found.root.absolute()))}",
        "  splits:",
        *(f"    {_split(split)}" for split in layout.splits),
        *_group(layout),
        "  coding:",
        *_coding(coding),
        *(
            _target(scored)
            if scored
            else ["targets: []    # train and val only; other data would be scored as targets"]
        ),
        *_protocol(found),
    ]
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _split(split: Split) -> str:
    parts = [f"images: {_text(split.images)}", f"masks: {'null' if split.masks is None else _text(split.masks)}"]
    parts += [f"list: {_text(split.list)}"] if split.list else []
    parts += [f"share: {split.share}"] if split.share else []
    return f"{split.name}: {{{', '.join(parts)}}}"


def _group(layout: Layout) -> list[str]:
    if layout.group is None:
        return []
    group = layout.group.replace("'", "''")
    return [f"  group: '{group}'    # {layout.groups} drives, each in one split; null divides single images"]


def _coding(coding: Coding) -> list[str]:
    if coding.kind == "ids" and not coding.stored:
        return ["    kind: ids    # masks hold train ids"]
    lines = [f"    kind: {coding.kind}", f"    {coding.kind}:"]
    guessed = coding.found_in == GUESSED
    lines += ["    # of the names above, counted from 0; or ignore"] if guessed else []
    for value, name in coding.stored.items():
        meaning = coding.names.index(name) if guessed and name in coding.names else _text(name)
        key = str(value) if isinstance(value, int) else _text("#{:02x}{:02x}{:02x}".format(*value))
        share = coding.share.get(value)
        lines.append(f"      {key}: {meaning}    # {f'{share:.2%} of the pixels' if share else 'not seen'}")
    if coding.kind == "ids" and IGNORE in coding.share and IGNORE not in coding.stored:
        lines.append(f"    # 255 is unlabelled: {coding.share[IGNORE]:.2%} of the pixels")
    return lines


def _target(scored: Sequence[Split]) -> list[str]:
    return ["targets:", *(f"  - {{dataset: folder, split: {split.name}, name: {split.name}}}" for split in scored)]


def _protocol(found: Described) -> list[str]:
    if not found.fit:
        return []
    edge = found.short_edges[len(found.short_edges) // 2] if found.short_edges else 0
    why = f"images of some {edge} pixels are shown at the size they are trained at"
    return [f"protocol: {{fit: {{folder: {SHOWN}}}}}    # {why}"]


def samples(found: Described, count: int) -> list[tuple[Path, Path]]:
    """Pairs that are shown, spread evenly over all splits."""
    every = [pair for split in found.layout.splits for pair in split.pairs]
    every = list(dict.fromkeys(every))
    return [every[i] for i in np.linspace(0, len(every) - 1, min(count, len(every))).round().astype(int)]
