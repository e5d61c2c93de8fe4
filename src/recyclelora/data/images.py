"""Image files that a user names: one, several, or a folder of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from recyclelora.data.patterns import is_hidden
from recyclelora.system.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
FILM_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


def list_images(given: Any) -> dict[Path, str]:
    """The image files of a folder (with its sub-folders), of one path or of a list, and a name for each output.

    Hidden files, and what is no regular file, are no images.

    Raises:
        UserError: a path that is not there or cannot be an image, or no image at all.
    """
    found: dict[Path, str] = {}
    others: Counter[str] = Counter()
    for entry in given if isinstance(given, list) else [given]:
        path = Path(str(entry)).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
            images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            others.update(
                p.suffix.lower() or "without a suffix" for p in files if p.suffix.lower() not in IMAGE_SUFFIXES
            )
            found |= {file: file.relative_to(path).with_suffix("").as_posix() for file in images}
        elif path.suffix.lower() in FILM_SUFFIXES and path.is_file():
            raise UserError(f"input={path}: {_FILM.format(path.name)}")
        elif path.exists():
            found[path] = path.stem
        else:
            raise UserError(f"input={path}: no such file or folder")
    if not found:
        counted = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(5))
        film = next((suffix for suffix in others if suffix in FILM_SUFFIXES), None)
        raise UserError(
            f"input={given}: no image in it ({', '.join(IMAGE_SUFFIXES)})"
            + (f"; its files: {counted}" if counted else "; it is empty")
            + (f"; {_FILM.format('<film>' + film)}" if film else "")
        )
    times = Counter(found.values())
    doubled = [str(path) for path, name in found.items() if times[name] > 1]
    if doubled:
        raise UserError(f"input: these images would write the same files: {', '.join(doubled[:4])}")
    return found


def _hidden(path: Path, below: Path) -> bool:
    """Whether it or a folder of it is hidden, such as the ``._photo.jpg`` that macOS writes beside a photo."""
    return is_hidden(path.relative_to(below).as_posix())


_FILM = "a film is not read; cut it into images: ffmpeg -i {} -r 2 frames/%05d.png"
