"""Segment unlabelled images and films with a run: masks, overlays and confidence.

    recyclelora predict run=outputs/runs/<run> input=photos/
    recyclelora predict run=outputs/runs/<run> input=[a.jpg,b.png] output=masks
    recyclelora predict run=outputs/runs/<run> input=drive.mp4 every=5

run=            the run directory
input=          a folder, an image, a film, a stream (rtsp://..., /dev/video0), or a list of these
output=         folder that is written (default: <run>/predictions)
checkpoint=     last (default), best_source or best_target
size=           short edge in pixels at which the model sees images (default: their own)
window=, batch= side of the squares into which larger images are cut, and how many go through at once
max_megapixels= larger images are refused (default 50)
every=          of films each so-many-th frame (default 1); frames=true writes the files of each frame, too
accelerator=    auto (default), cpu or gpu
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recyclelora.commands import start
from recyclelora.data.images import list_inputs
from recyclelora.runs.directory import PREDICTIONS
from recyclelora.system.imports import quick_imports

if TYPE_CHECKING:
    from recyclelora.config.commands import PredictConfig


def predict(config: PredictConfig, trial: int | None = None) -> None:
    """Write id masks, overlays and confidence maps of all input images to ``output`` or ``<run>/predictions``.

    Of films a film of overlays.

    Raises:
        UserError: images or films that could not be segmented, by name; all others are done first.
        Interrupted: a signal asked to stop; what was done is kept.
    """
    images, films = list_inputs(config.input)
    with quick_imports():
        from recyclelora.evaluation.image_files import predict_files, predict_films
        from recyclelora.evaluation.load import load
        from recyclelora.evaluation.predictions import save_classes
        from recyclelora.system.next_steps import next_steps, with_run
        from recyclelora.system.progress import Reporter
        from recyclelora.system.storage import folder_inside

    model = load(config.run, config.checkpoint, accelerator=config.accelerator)
    output = (
        Path(config.output) if config.output else folder_inside(Path(config.run), PREDICTIONS, "give output=<folder>")
    )
    reporter = Reporter()
    save_classes(output, model.classes)
    if films:
        predict_films(model, films, output, config, reporter)
    if images:
        predict_files(model, images, output, config, reporter)
    if trial is None:
        reporter.note(next_steps(*with_run(Path(config.run), "evaluate", "export")))


def main() -> None:
    """``python predict.py run=<run dir> input=<folder or images>``."""
    start("predict", predict)
