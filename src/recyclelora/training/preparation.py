"""What a run does with its data before the first step: render scenes, look at every file and at the labels."""

from __future__ import annotations

from collections.abc import Sequence

from recyclelora.config.run import Config
from recyclelora.data.build import Datasets
from recyclelora.data.datasets import Dataset
from recyclelora.data.preparation import check_labels, render_scenes, scenes_to_render
from recyclelora.data.soundness import SoundFiles, samples_of, sound_files, unusable_files
from recyclelora.system.errors import BrokenFile, listed
from recyclelora.system.progress import Reporter

FEW_SCENES = 16
"""As many are rendered by the loaders themselves before other processes have started."""


def prepare_data(config: Config, datasets: Datasets, reporter: Reporter, *, begins: bool) -> None:
    """Render the scenes of ``data=streets`` that no run has needed before; look at the files of a run that begins.

    Raises:
        UserError: files cannot be used, or there is nothing to learn.
    """
    jobs = scenes_to_render(datasets.all)
    if len(jobs) > FEW_SCENES:
        with reporter.bar("rendering streets (once)", len(jobs)) as update:
            render_scenes(jobs, update)
    if begins:
        _check_files(datasets.all, sound_files(config.cache), reporter)
    check_labels(datasets.sources, config.data.classes.names)


def _check_files(datasets: Sequence[Dataset], remembered: SoundFiles, reporter: Reporter) -> None:
    """Refuse files that would end this run, or its scoring, hours later."""
    if remembered.know(datasets):
        return
    with reporter.bar("looking at all files (once)", len(samples_of(datasets))) as update:
        broken = unusable_files(datasets, update)
    if broken:
        head = f"{len(broken)} samples of the data cannot be used (inspect_data.py tells all about them):"
        raise BrokenFile("\n".join([head, *listed(broken)]), tuple(name for error in broken for name in error.files))
    remembered.remember(datasets)
