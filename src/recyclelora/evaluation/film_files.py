"""Segmenting films and streams: a film of overlays, and if wanted the files of every frame."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from recyclelora.config.commands import PredictConfig
from recyclelora.data.films import Film, FilmWriter, opened
from recyclelora.evaluation.evaluator import Stopped
from recyclelora.evaluation.load import Shown, TrainedModel
from recyclelora.evaluation.predictions import save_prediction
from recyclelora.system.errors import Interrupted, UserError
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
    if stop.received is not None:
        raise Interrupted(
            "\n".join([f"stopped by signal {stop.received}; the films so far are kept in {output}/films", *failures]),
            128 + stop.received,
        )
    if failures:
        raise UserError("\n".join([f"{len(failures)} of {len(films)} films could not be segmented:", *failures]))


def _predict_film(
    model: TrainedModel, film: Film, name: str, output: Path, config: PredictConfig, reporter: Reporter,
    stop: StopRequest,
) -> int:  # fmt: skip
    """How many frames were segmented."""
    height, width = film.size
    if height * width > 1e6 * config.max_megapixels:
        raise UserError(
            f"{film.source}: {width}x{height} pixels are more than max_megapixels={config.max_megapixels:g}"
        )
    shown, done = Shown(config.size, config.window, config.batch), 0
    total = 0 if film.frames is None else -(-film.frames // config.every)
    writer = FilmWriter(output / "films" / f"{name}.mp4", film.fps / config.every, film.size)
    try:
        with contextlib.suppress(Stopped), reporter.bar(f"predicting {name}", total) as update:
            for number, frame in film.read(config.every):
                prediction = model.predict(frame, shown, lambda count: _unless_stopped(stop))
                writer.add(prediction.overlay())
                if config.frames:
                    save_prediction(output, f"{name}/{number:06d}", frame, prediction, model.classes)
                done += 1
                update(1, total=max(total, done))
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(
            f"{film.source}: needs more memory than there is; set size=, or a smaller window= or batch="
        ) from error
    finally:
        writer.close()
    if not done and not stop.requested():
        raise UserError(f"{film.source}: holds no frame that can be read")
    return done


def _unless_stopped(stop: StopRequest) -> None:
    if stop.requested():
        raise Stopped
