"""Segment unlabelled images with a run; also ``python -m recyclelora.predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from recyclelora.cli import launch
from recyclelora.data.patterns import is_hidden
from recyclelora.errors import UserError
from recyclelora.schemas import PredictConfig

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def predict(config: PredictConfig, trial: int | None = None) -> None:
    """Write id masks, overlays and confidence maps of all input images to ``output`` or ``<run>/predictions``."""
    images = list_images(config.input)
    from recyclelora.data.reading import read_upright
    from recyclelora.inference import load
    from recyclelora.predictions import save_prediction
    from recyclelora.progress import Reporter
    from recyclelora.storage import folder_inside

    reporter = Reporter()
    model = load(config.run, config.checkpoint, accelerator=config.accelerator)
    output = Path(config.output) if config.output else folder_inside(Path(config.run), "predictions")
    failures: list[str] = []
    with reporter.bar("predicting", len(images)) as update:
        for path, name in images.items():
            try:
                image = read_upright(path)
            except UserError as error:
                failures.append(str(error))
                continue
            save_prediction(output, name, image, model.predict(image), model.classes)
            update(1)
    reporter.note(f"{len(images) - len(failures)} images: {output}/ids, {output}/overlays, {output}/confidence")
    if failures:
        raise UserError("\n".join(failures))


def list_images(given: Any) -> dict[Path, str]:
    """The image files of a folder (with its sub-folders), of one path or of a list, and a name for each output.

    Raises:
        UserError: a path that is not there, or no image at all.
    """
    found: dict[Path, str] = {}
    for entry in given if isinstance(given, list) else [given]:
        path = Path(str(entry)).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not _hidden(p, path))
            found |= {file: file.relative_to(path).with_suffix("").as_posix() for file in files}
        elif path.is_file():
            found[path] = path.stem
        else:
            raise UserError(f"input={path}: no such file or folder")
    if not found:
        raise UserError(f"input={given}: no image in it ({', '.join(IMAGE_SUFFIXES)})")
    times = Counter(found.values())
    doubled = [str(path) for path, name in found.items() if times[name] > 1]
    if doubled:
        raise UserError(f"input: these images would write the same files: {', '.join(doubled[:4])}")
    return found


def _hidden(path: Path, below: Path) -> bool:
    """Whether it or a folder of it is hidden, such as the ``._photo.jpg`` that macOS writes beside a photo."""
    return is_hidden(path.relative_to(below).as_posix())


def main() -> None:
    """``python predict.py run=<run dir> input=<folder or images>``."""
    launch("predict", predict)


if __name__ == "__main__":
    main()
