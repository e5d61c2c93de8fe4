"""Fetch and compute everything that a training needs, on a node with network.

    recyclelora prepare data=gta2city backbone=dinov2_large

Takes the options of the `recyclelora train` to come, which then runs offline: weights, a look at all data, decoded
images, class counts, decomposed layers and what an adapter looks at.
"""

from __future__ import annotations

from recyclelora.commands import start
from recyclelora.config.run import Config
from recyclelora.system.imports import quick_imports


def prepare(config: Config, trial: int | None = None) -> None:
    """Fetch weights, check the data, and fill the caches that the same ``train.py`` command will read.

    Raises:
        UserError: shapes do not fit, or weights, data or a package are missing or broken.
    """
    import sys
    from pathlib import Path

    with quick_imports():
        from recyclelora.config.build import build_model, check_shapes, locate_weights
        from recyclelora.data.build import build_datasets, build_rare_classes
        from recyclelora.data.preparation import decode, samples_to_decode
        from recyclelora.data.soundness import sound_files
        from recyclelora.reports.inspection.writing import inspect_pair
        from recyclelora.system.devices import resolve_accelerator
        from recyclelora.system.next_steps import next_steps, typed_as
        from recyclelora.system.progress import Reporter
        from recyclelora.training.calibration import CalibrationImages

    reporter = Reporter()
    check_shapes(config)
    weights = locate_weights(config.backbone)
    if weights is None:
        reporter.note(f"weights: none, {config.backbone.name} stays random")
    else:
        reporter.note(f"weights: {weights.path} ({weights.origin}), sha256 {weights.sha256}")
    inspect_pair(config.data, config.cache, Path(config.output_dir), config.trainer.num_workers, reporter)
    datasets = build_datasets(config.data, config.cache)
    sound_files(config.cache).remember(datasets.all)
    samples = samples_to_decode(datasets.all)
    if samples:
        with reporter.bar("decoding", len(samples)) as update:
            decode(samples, update)
    build_rare_classes(config.data, datasets.sources, config.cache, lambda n: reporter.bar("counting classes", n))
    images = CalibrationImages.of(config, datasets)
    what = "decomposing layers" if images is None else "looking at images"
    with reporter.telling_warnings(), reporter.bar(what, 1) as update:
        build_model(
            config, weights, progress=lambda done, total, layer: update(1, total=total),
            images=None if images is None else images.on(resolve_accelerator(config.trainer.accelerator)),
        )  # fmt: skip
    reporter.note(f"ready: {config.cache} and the weights hold all that train.py needs with the same overrides")
    reporter.note(next_steps(("train", typed_as("train", *sys.argv[1:]))))


def main() -> None:
    """``python prepare.py data=... backbone=...``, with the overrides of the training to come."""
    start("prepare", prepare, config_name="train")
