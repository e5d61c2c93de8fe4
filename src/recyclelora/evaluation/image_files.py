"""Segmenting image files of any size, and films: how far each is, what is refused before its pixels are unpacked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path

import torch

from recyclelora.config.commands import PredictConfig
from recyclelora.data.films import Film, FilmWriter, opened
from recyclelora.data.headers import read_header
from recyclelora.data.reading import read_upright
from recyclelora.evaluation.evaluator import Stopped
from recyclelora.evaluation.load import Shown, TrainedModel
from recyclelora.evaluation.predictions import save_prediction
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest


def predict_files(
    model: TrainedModel, images: Mapping[Path, str], output: Path, config: PredictConfig, reporter: Reporter
) -> None:
    """Write id mask, its colours, overlay and confidence map of every image, under its name, to ``output``.

    Raises:
        UserError: images that could not be segmented, by name; all others are done first.
        Interrupted: a signal asked to stop; what was done is kept.
    """
    shown = Shown(config.size, config.window, config.batch)
    failures: list[str] = []
    done = 0
    stop = StopRequest()
    with stop, reporter.bar("predicting", len(images)) as update, contextlib.suppress(Stopped):
        windows = Windows(len(images), update, stop)
        for path, name in images.items():
            if stop.requested():
                break
            try:
                predict_file(model, shown, path, output, name, windows, config.max_megapixels)
                done += 1
            except UserError as error:
                failures.append(str(error))
                windows.skip()
    if done:
        reporter.note(
            f"{done} of {len(images)} images: {output}/ids, colours, overlays, confidence; classes.json, legend.png"
        )
    end(stop, f" after {done} of {len(images)} images; what is done is kept in {output}", failures, images, "images")


def end(stop: StopRequest, kept: str, failures: Sequence[str], asked: Sized, what: str) -> None:
    """End a command that was to segment many files, and has done what it could.

    Args:
        stop: whether a signal asked to stop
        kept: what it then finds
        failures: a line for each file that could not be segmented
        asked: all files
        what: they are

    Raises:
        UserError: files could not be segmented.
        Interrupted: a signal asked to stop.
    """
    if stop.received is not None:
        raise stop.interrupted("\n".join([kept, *failures]))
    if failures:
        raise UserError("\n".join([f"{len(failures)} of {len(asked)} {what} could not be segmented:", *failures]))


@contextlib.contextmanager
def enough_memory(source: object) -> Iterator[None]:
    """Raise a UserError that says what helps where an image needs more memory than there is."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(
            f"{source}: needs more memory than there is; set size=, or a smaller window= or batch="
        ) from error


class Windows:
    """Progress in windows of images whose sizes are not known before they are read.

    Args:
        images: how many there are; each counts as one window until it is read
        update: of the bar
        stop: looked at after each batch of windows
    """

    def __init__(self, images: int, update: Callable[..., None], stop: StopRequest) -> None:
        self.total = images
        self.update = update
        self.stop = stop
        self.left = 1

    def begin(self, windows: int) -> None:
        """The next image has so many."""
        self.total += windows - 1
        self.left = windows
        self.update(0, total=self.total)

    def skip(self) -> None:
        """The image is given up."""
        self.update(self.left)
        self.left = 1

    def advance(self, count: int) -> None:
        """So many more are done.

        Raises:
            Stopped: a signal asks to stop.
        """
        self.left -= count
        self.update(count)
        if self.stop.requested():
            raise Stopped


def predict_file(
    model: TrainedModel, shown: Shown, path: Path, output: Path, name: str, windows: Windows, max_megapixels: float
) -> None:
    """Segment one image file and write what was found.

    Raises:
        UserError: it cannot be read, is too large, or needs more memory than there is.
    """
    check_pixels(path, max_megapixels)
    image = read_upright(path)
    windows.begin(model.evaluator_for((image.shape[0], image.shape[1]), shown).steps((image.shape[0], image.shape[1])))
    with enough_memory(path):
        prediction = model.predict(image, shown, windows.advance)
    windows.left = 1
    save_prediction(output, name, image, prediction, model.classes)


def check_pixels(path: Path, max_megapixels: float) -> None:
    """Look at the size that a file claims before its pixels are unpacked: a few bytes can claim gigabytes.

    Raises:
        UserError: it is larger than allowed, or not a regular file.
    """
    if not path.is_file():
        raise UserError(f"{path}: not a regular file")
    header = read_header(path)
    if header is None:
        return  # whoever reads the pixels says what is wrong
    check_size(path, header.size, max_megapixels)


def check_size(source: object, size: tuple[int, int], max_megapixels: float) -> None:
    """Raise a UserError for a size (H, W) that is larger than allowed."""
    height, width = size
    if height * width > 1e6 * max_megapixels:
        raise UserError(
            f"{source}: {width}x{height} pixels are more than max_megapixels={max_megapixels:g}; raise it, or make "
            "what is segmented smaller"
        )


def predict_films(
    model: TrainedModel, films: Mapping[str, str], output: Path, config: PredictConfig, reporter: Reporter
) -> None:
    """Write ``films/<name>.mp4`` of every film or stream; with ``config.frames`` also the files of each frame.

    Raises:
        UserError: films that could not be segmented, by name; all others are done first.
        Interrupted: a signal asked to stop; the film so far can be played.
    """
    failures: list[str] = []
    stop = StopRequest()
    with stop:
        for source, name in films.items():
            if stop.requested():
                break
            try:
                with opened(source) as film:
                    done = _predict_film(model, film, name, output, config, reporter, stop)
                reporter.note(f"{done} frames of {source}: {output / 'films' / name}.mp4")
            except UserError as error:
                failures.append(str(error))
    end(stop, f"; the films so far are kept in {output}/films", failures, films, "films")


def _predict_film(
    model: TrainedModel, film: Film, name: str, output: Path, config: PredictConfig, reporter: Reporter,
    stop: StopRequest,
) -> int:  # fmt: skip
    """How many frames were segmented."""
    check_size(film.source, film.size, config.max_megapixels)
    shown, done = Shown(config.size, config.window, config.batch), 0
    total = 0 if film.frames is None else -(-film.frames // config.every)
    writer = FilmWriter(output / "films" / f"{name}.mp4", film.fps / config.every, film.size)
    try:
        bar = reporter.bar(f"predicting {name}", total)
        with contextlib.suppress(Stopped), enough_memory(film.source), bar as update:
            for number, frame in film.read(config.every):
                prediction = model.predict(frame, shown, lambda count: _unless_stopped(stop))
                writer.add(prediction.overlay())
                if config.frames:
                    save_prediction(output, f"{name}/{number:06d}", frame, prediction, model.classes)
                done += 1
                update(1, total=max(total, done))
    finally:
        writer.close()
    if not done and not stop.requested():
        raise UserError(f"{film.source}: holds no frame that can be read")
    return done


def _unless_stopped(stop: StopRequest) -> None:
    if stop.requested():
        raise Stopped
