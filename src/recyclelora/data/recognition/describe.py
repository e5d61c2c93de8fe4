"""From a folder to an option file, a picture, and the commands that follow."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from recyclelora.data.labels import IGNORE
from recyclelora.data.reading import read_upright
from recyclelora.data.recognition.coding import GUESSED, Colour, recognise_coding
from recyclelora.data.recognition.layout import recognise
from recyclelora.data.recognition.option_file import SHOWN, Described, as_yaml, samples
from recyclelora.drawing.sheets import crop_sheet, png
from recyclelora.system.errors import UserError, some
from recyclelora.system.next_steps import next_steps, typed_as
from recyclelora.system.storage import write_bytes, write_text

PICTURES = 6
TILE = (240, 320)
"""(H, W) in pixels into which samples are fitted."""


def describe_folder(
    root: Path,
    name: str | None,
    config_dir: Path,
    say: Callable[[str], None],
    cityscapes: bool = False,
    names: Sequence[str] | None = None,
) -> Path:
    """Look at a folder and write ``<config_dir>/data/<name>.yaml`` and ``.png``; returns the first.

    Args:
        root: the folder
        name: of the data; None: the folder's
        config_dir: of the owner's option files
        say: tells a line
        cityscapes: whether masks are known to hold Cityscapes' label ids
        names: of the classes in the order of what was recognised, see `Coding.named`

    Raises:
        UserError: there is nothing to be recognised, or one of the files is there already and was changed.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    name = name or re.sub(r"[^\w+-]+", "_", root.resolve().name).strip("_") or "mine"
    if not re.fullmatch(r"\w[\w+-]*", name):
        raise UserError(f"--name {name}: names files: use letters, digits, '_', '-' and '+'")
    path = config_dir / "data" / f"{name}.yaml"
    picture = path.with_suffix(".png")
    if names is None:
        _refuse_taken(path, picture)
    layout = recognise(root)
    coding = recognise_coding(
        root, list(dict.fromkeys(m for split in layout.splits for _, m in split.pairs)), cityscapes
    )
    here = ["--config-dir", str(config_dir), f"data={name}"]
    check = typed_as("inspect-data", *here)
    found = Described.of(name, root, layout, coding)
    if names is not None:
        named = replace(found, coding=coding.named(names))
        ours = (as_yaml(found, check), as_yaml(named, check))
        if not (path.is_file() and path.read_text(encoding="utf-8") in ours):
            _refuse_taken(path, picture)  # what nobody has changed since it was written is replaced
        found = named
    for line in _findings(found):
        say(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(picture, png(_picture(found)))
    write_text(path, as_yaml(found, check))
    say(f"written: {path} (check it), {picture} (do colours and names belong together?)")
    size = [f"size={SHOWN[0]}"] if found.fit else []
    again = ["--name", name, "--config-dir", str(config_dir), "--names", ",".join(found.coding.names)]
    naming = ("name the classes, in this order", typed_as("init-data", str(root), *again))
    say(next_steps(
        *([naming] if found.coding.found_in == GUESSED else []),
        ("look at every file", check),
        ("train", typed_as("train", *here, "experiment=finetune_small")),
        ("segment others", typed_as("predict", "run=outputs/runs/<run>", "input=<photos>", *size)),
    ))  # fmt: skip
    return path


def _refuse_taken(*files: Path) -> None:
    if taken := next((file for file in files if file.exists()), None):
        raise UserError(f"{taken}: is there already and is not overwritten: remove it, or give another --name")


def _findings(found: Described) -> list[str]:
    """What was seen, in lines."""
    layout, coding = found.layout, found.coding
    shared = [split for split in layout.splits if split.share]
    lines = []
    for split in layout.splits:
        amount = f"{split.share:.0%} of {len(split.pairs)}" if split.share else str(len(split.pairs))
        text = f"{split.name}: {amount} images with masks ({split.images}, {split.masks or 'no masks'})"
        if split.masks is None:
            text = f"{split.name}: {split.unmasked} images without masks ({split.images})"
        elif split.unmasked or split.lonely:
            text += f"; {split.unmasked} images without a mask, {split.lonely} masks without an image"
        lines.append(text)
    if shared and layout.group:
        lines.append(f"the shares keep {layout.groups} drives together (folder.group)")
    what = f"{coding.kind} of {len(coding.names)} classes, names {coding.found_in}: {', '.join(coding.names[:12])}"
    lines.append(f"masks: {what}{', ...' if len(coding.names) > 12 else ''}; {coding.looked_at} looked at")
    if found.short_edges:
        lines.append(f"sizes: short edges of {found.short_edges[0]} to {found.short_edges[-1]} pixels")
    if any(split.unmasked for split in layout.splits if split.masks is not None):
        lines.append("images without a mask are refused: move them away, or name them in folder.exclude")
    if layout.left:
        folders = [f"{count} in {folder}/" for folder, count in layout.left.most_common()]
        lines.append(f"left out, being in no split: images {some(folders, 3)}")
    return lines


def _picture(found: Described) -> np.ndarray:
    """Samples under their masks, with a legend."""
    tiles = [_tile(found, image, mask) for image, mask in samples(found, PICTURES)]
    return crop_sheet(tiles, found.colours, 2, f"{found.name}: images, and the same under their masks", width=300)


def _tile(found: Described, image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, ids = read_upright(image), _train_ids(found, mask)
    high, wide = TILE
    scale = min(high / pixels.shape[0], wide / pixels.shape[1])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    shown = np.full((high, wide, 3), 255, np.uint8)
    label = np.full((high, wide), IGNORE, np.uint8)
    top, left = (high - size[1]) // 2, (wide - size[0]) // 2
    shown[top : top + size[1], left : left + size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    label[top : top + size[1], left : left + size[0]] = small
    return shown, label


def _train_ids(found: Described, mask: Path) -> np.ndarray:
    """The mask (H, W) as its coding reads it."""
    coding = found.coding
    numbers = {name: index for index, name in enumerate(coding.names)}
    with Image.open(mask) as picture:
        pixels = np.asarray(picture.convert("RGB") if coding.kind == "colours" else picture)
    ids = np.full(pixels.shape[:2], IGNORE, np.uint8)
    stored: dict[int | Colour, str] = coding.stored or dict(enumerate(coding.names))
    for value, name in stored.items():
        hit = pixels == value if isinstance(value, int) else (pixels == np.array(value)).all(-1)
        ids[hit] = numbers.get(name, IGNORE)
    return ids
