"""Segmenting films and streams: a film of overlays, and if wanted the files of every frame."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from recyclelora.config.commands import PredictConfig
from recyclelora.data.films import Film, FilmWriter, opened
from recyclelora.evaluation.evaluator import Stopped
from recyclelora.evaluation.image_files import check_size, end, enough_memory
from recyclelora.evaluation.load import Shown, TrainedModel
from recyclelora.evaluation.predictions import save_prediction
from recyclelora.system.errors import UserError
from recyclelora.system.progress import Reporter
from recyclelora.system.stopping import StopRequest


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
