"""Image files and films that a user names: one, several, or a folder of them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from recyclelora.data.films import STREAM
from recyclelora.data.patterns import is_hidden
from recyclelora.system.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FILM_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


def list_images(given: Any) -> dict[Path, str]:
    """The image files of a folder (with its sub-folders), of one path or of a list, and a name for each output.

    Hidden files, and what is no regular file, are no images.

    Raises:
        UserError: a path that is not there or cannot be an image, a film, or no image at all.
    """
    images, films = list_inputs(given)
    if films and not images:
        raise UserError(f"input={next(iter(films))}: a film has no place here; name images of it")
    return images


def list_inputs(given: Any) -> tuple[dict[Path, str], dict[str, str]]:
    """As :func:`list_images`, and films and streams with a name for each output.

    Raises:
        UserError: a path that is not there or cannot be an image or a film, or neither is there.
    """
    images, films = dict[Path, str](), dict[str, str]()
    others: Counter[str] = Counter()
    for entry in given if isinstance(given, list) else [given]:
        path = Path(str(entry)).expanduser()
        if STREAM.fullmatch(str(entry)):
            films[str(entry)] = re.sub(r"\W+", "_", str(entry)).strip("_")
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if not p.is_dir() and not _hidden(p, path))
            for file in files:
                name, suffix = file.relative_to(path).with_suffix("").as_posix(), file.suffix.lower()
                if suffix in IMAGE_SUFFIXES:
                    images[file] = name
                elif suffix in FILM_SUFFIXES and file.is_file():
                    films[str(file)] = name
                else:
                    others[suffix or "without a suffix"] += 1
        elif path.suffix.lower() in FILM_SUFFIXES and path.is_file():
            films[str(path)] = path.stem
        elif path.exists():
            images[path] = path.stem
        else:
            raise UserError(f"input={path}: no such file or folder")
    if not images and not films:
        counted = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(5))
        raise UserError(
            f"input={given}: no image in it ({', '.join(IMAGE_SUFFIXES)}) and no film"
            + (f"; its files: {counted}" if counted else "; it is empty")
        )
    times = Counter([*images.values(), *films.values()])
    doubled = [str(path) for path, name in [*images.items(), *films.items()] if times[name] > 1]
    if doubled:
        raise UserError(f"input: these images would write the same files: {', '.join(doubled[:4])}")
    return images, films


def _hidden(path: Path, below: Path) -> bool:
    """Whether it or a folder of it is hidden, such as the ``._photo.jpg`` that macOS writes beside a photo."""
    return is_hidden(path.relative_to(below).as_posix())
