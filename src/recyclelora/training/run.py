"""A run: identity -> directory -> model -> training -> scores -> ``result.json``.

The same configuration on the same data and weights is the same run: it resumes from its last checkpoint, or reports
what it found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from recyclelora.config.build import Model, build_model, check_shapes, locate_weights
from recyclelora.config.compose import home, validate
from recyclelora.config.run import ACROSS_BLOCKS, Config
from recyclelora.data.build import Datasets, build_datasets
from recyclelora.data.identity import Files
from recyclelora.data.open import describe_datasets, own_files, with_first_masks
from recyclelora.evaluation.evaluator import Stopped
from recyclelora.models.backbones.weights import WeightsFile
from recyclelora.models.sharding import shard
from recyclelora.runs.checkpoint import Checkpoint, newest_checkpoint
from recyclelora.runs.directory import LOG, RESULT, is_finished
from recyclelora.runs.identity import Identity, Place, earlier_run, find_run, note_unreadable
from recyclelora.runs.record import claimed, describe, record
from recyclelora.runs.status import noted_end
from recyclelora.runs.unit import Unit
from recyclelora.system.devices import (
    check_launched_processes,
    first_alone,
    launched_fabric,
    no_lost_process,
    only_deterministic,
    resolve_precision,
    set_numerics,
)
from recyclelora.system.errors import BrokenFile, UserError
from recyclelora.system.progress import Reporter, shown
from recyclelora.system.storage import set_aside
from recyclelora.tracking.process import asked_for, followed
from recyclelora.training.calibration import CalibrationImages
from recyclelora.training.init_from import WarmStart
from recyclelora.training.preparation import prepare_data
from recyclelora.training.result import known_result, tell_result, write_result
from recyclelora.training.trainer import Trainer


def with_length(config: Config, datasets: Datasets) -> Config:
    """The configuration with the steps that ``trainer.epochs`` comes to.

    Raises:
        ConfigError: something of it does not fit that length.
    """
    if config.trainer.epochs is None:
        return config
    steps = config.trainer.steps(sum(map(len, datasets.sources)))
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, max_steps=steps))
    validate(config)
    return config


def length(config: Config, datasets: Datasets) -> str:
    """What was chosen by the size of the data, and with which rates, in one line."""
    t, images = config.trainer, sum(map(len, datasets.sources))
    scale = f", adapter scale {config.adapter.scale:g}" if getattr(config.adapter, "scale_rule", "") == "fixed" else ""
    decoder_lr = config.optimizer.lr * getattr(config.decoder, "lr_mult", 1)
    return (
        f"length: {t.max_steps} steps of {t.batch_size}, {t.max_steps * t.batch_size / images:.1f} times through "
        f"{images} images (trainer.epochs={t.epochs:g}, at least {t.min_steps} steps); learning rate "
        f"{config.optimizer.lr:g}, of the decoder {decoder_lr:g}{scale}"
    )


@dataclass(frozen=True)
class Run(Place):
    """A configuration with all that decides which run it is."""

    config: Config
    fabric: Fabric
    datasets: Datasets
    files: Files
    weights: WeightsFile | None
    start: WarmStart | None
    calibration: CalibrationImages | None = None
    """what the adapter looks at before it starts"""
    remark: str | None = None
    """what the user should know before it begins"""

    # --- which run it is ----------------------------------------------------------------------------------------------

    @classmethod
    def identify(cls, config: Config, trial: int | None) -> Run:
        """Open data and weights and find out which run this is; builds no model."""
        unit = Unit.current()
        if unit is not None:  # fresh=true set the old sweep aside; its trials go on when they come back
            config = dataclasses.replace(config, fresh=False)
        t = config.trainer
        check_launched_processes(t.devices, t.num_nodes)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its remarks on precision are ours to make
        warnings.filterwarnings("ignore", message="The `srun` command is available")  # one process needs no srun
        set_numerics(deterministic=t.deterministic, tf32=t.tf32)
        precision = resolve_precision(t.precision, t.accelerator)
        fabric = launched_fabric(
            t.accelerator,
            precision,
            devices=t.devices,
            num_nodes=t.num_nodes,
            stall_timeout=t.stall_timeout,
            shard=shard if t.strategy == "fsdp" else None,
        )
        datasets = build_datasets(config.data, config.cache)
        config = with_length(config, datasets)
        check_shapes(config)
        weights = locate_weights(config.backbone)
        start = WarmStart.read(config.init_from) if config.init_from else None
        if start is not None:
            start.check(config, weights.sha256 if weights else None)
        files = Files.of(datasets.sources, datasets.scored)
        calibration = None if start is not None else CalibrationImages.of(config, datasets)
        identity = Identity(
            weights.sha256 if weights else None, files.trained_on(), precision, t.devices * t.num_nodes,
            start.sha256 if start else None, calibration.digest if calibration else None,
        )  # fmt: skip
        place = find_run(config, identity, files, trial, unit)
        run = cls(
            **vars(place), config=config, fabric=fabric, datasets=datasets, files=files, weights=weights, start=start,
            calibration=calibration,
        )  # fmt: skip
        run = run._with_masks_read_so_far(trial, unit) or run
        if unit is not None:
            if fabric.is_global_zero:
                unit.runs_in(run.directory.path)
        elif not run.directory.path.exists():
            return dataclasses.replace(run, remark=earlier_run(run.config, run.identity, run.files, trial))
        return run

    def _with_masks_read_so_far(self, trial: int | None, unit: Unit | None) -> Run | None:
        """The run of this command that began with the kind of masks it found first; None where there is no such run."""
        if self.directory.path.exists() or not self.directory.alike():
            return None
        data = with_first_masks(self.config.data, self.datasets.all)
        if data is None:
            return None
        config = dataclasses.replace(self.config, data=data)
        datasets = build_datasets(data, config.cache)
        files = Files.of(datasets.sources, datasets.scored)
        calibration = CalibrationImages.of(config, datasets) if self.calibration else None
        digest = calibration.digest if calibration else None
        identity = dataclasses.replace(self.identity, dataset_digest=files.trained_on(), calibration=digest)
        place = find_run(config, identity, files, trial, unit)
        if not place.directory.path.exists():
            return None
        return dataclasses.replace(
            self, **vars(place), config=config, datasets=datasets, files=files, calibration=calibration
        )

    @functools.cached_property
    def source_classes(self) -> frozenset[int] | None:
        """The train ids that its sources hold; None where these are all."""
        return self.datasets.source_classes(len(self.config.data.classes.names))

    @functools.cached_property
    def digests(self) -> dict[str, Any]:
        """Of its data: all together, what is trained on, and each scored set."""
        return {
            "dataset_digest": self.files.all_together(),
            "training_digest": self.files.trained_on(),
            "scored_digests": self.files.scored_digests(),
        }

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """What ``run.json`` tells of this launch; the code's state is the one it was started with."""
        names, held = self.config.data.classes.names, self.source_classes
        extra = {
            "weights_origin": self.weights.origin if self.weights else None,
            "datasets": describe_datasets(self.config.data, self.datasets.all),
            "source_classes": None if held is None else [names[index] for index in sorted(held)],
            **self.digests,
        }
        if self.calibration is not None:
            extra["calibration"] = self.calibration.describe()
        return describe(self.config, self, extra, home())

    # --- its way ------------------------------------------------------------------------------------------------------

    def execute(self, *, alone: bool = True) -> float | None:
        """Train, or resume, or report the finished result; returns the objective.

        Args:
            alone: False: the command goes on after it and says itself what to do next.
        """
        first, tracking = self.fabric.is_global_zero, self.config.tracking
        result = known_result(self)
        if result is not None:
            return tell_result(self, result, "already finished", Reporter(enabled=first), alone=alone)
        trackers = asked_for(tracking)
        with no_lost_process(self.fabric), claimed(self.directory, self.config) if first else contextlib.nullcontext():
            self.fabric.barrier()
            reporter = self._begin()
            checkpoint = newest_checkpoint(self.directory.checkpoints, reporter.warn)
            with (
                followed(self.directory.path, trackers if first else [], tracking.uri) as followers,
                noted_end(self.directory.path) if first else contextlib.nullcontext(),
                self._noting_unreadable(),
            ):
                if first:
                    prepare_data(self.config, self.datasets, reporter, begins=checkpoint is None)
                self.fabric.barrier()
                trainer = self._trainer(reporter, checkpoint)
                with contextlib.suppress(Stopped), only_deterministic():
                    if trainer.fit():
                        with trainer.stop:
                            result = write_result(self, trainer)
                if result is None:
                    raise trainer.stop.as_error(trainer.step, fresh=self.config.fresh)
            objective = tell_result(self, result, "finished", reporter, alone=alone)
            for follower in followers:
                if not follower.sent:
                    reporter.warn(follower.unsent())
            return objective

    def _begin(self) -> Reporter:
        """Write the record of this launch and say what the user should know of it."""
        reporter = Reporter(self.directory.path / LOG, enabled=self.fabric.is_global_zero)
        reporter.note(f"run directory: {shown(self.directory.path)}")
        if self.remark is not None:
            reporter.warn(self.remark)
        if self.config.trainer.epochs is not None:
            reporter.note(length(self.config, self.datasets))
        if self.fabric.is_global_zero:
            if is_finished(self.directory.path):
                set_aside(self.directory.path / RESULT)
            for remark in record(self.directory, self.description):
                reporter.warn(remark)
            files = own_files(self.config.data)
            if files is not None and (unused := files.line()) is not None:
                reporter.note(unused)
        return reporter

    @contextlib.contextmanager
    def _noting_unreadable(self) -> Iterator[None]:
        """Let this run be found again when a file of what it trains on has been mended."""
        try:
            yield
        except BrokenFile as error:
            note_unreadable(self.directory, self.files, error.files)
            raise UserError(f"{error}\nmend it; the same command then goes on") from error

    def _trainer(self, reporter: Reporter, checkpoint: Checkpoint | None) -> Trainer:
        """Build the model, put it where it runs, and go back to the checkpoint if there is one."""
        began = time.perf_counter()
        # the first one decomposes and the others read its cache; but images they look at together
        with contextlib.nullcontext() if self.calibration else first_alone(self.fabric):
            model = self._model(reporter, checkpoint)
        if self.config.trainer.strategy == "fsdp" and (model.after_step or model.segmenter.penalty):
            raise UserError(f"trainer.strategy=fsdp: adapter={self.config.adapter.name} {ACROSS_BLOCKS}")
        remarks = self.start.apply(model.segmenter, self.config.data.classes.names) if self.start else []
        for remark in remarks:
            reporter.note(f"init_from: {remark}")
        trainer = Trainer(
            config=self.config, fabric=self.fabric, model=model, datasets=self.datasets, directory=self.directory,
            reporter=reporter, began=began, unit=Unit.current(),
        )  # fmt: skip
        trainer.begin(checkpoint)
        return trainer

    def _model(self, reporter: Reporter, checkpoint: Checkpoint | None) -> Model:
        origin = self.weights.origin if self.weights else "random weights"
        reporter.note(
            f"backbone: {self.config.backbone.name} ({origin}), adapter: {self.config.adapter.name}, "
            f"precision: {self.identity.precision}, device: {self.fabric.device}"
        )
        initial = checkpoint.tensors["initial"] if checkpoint else None
        if initial is None and self.start is not None:
            initial = self.start.weights.initial
        images = self.calibration if initial is None else None
        if images is not None:
            reporter.note(f"calibration: looking at {images}")
        with (
            reporter.telling_warnings(),
            torch.random.fork_rng(devices=[]),
            reporter.bar("decomposing layers" if images is None else "looking at images", 1) as update,
        ):
            torch.manual_seed(self.config.seed)
            return build_model(
                self.config, self.weights, initial=initial,
                progress=lambda done, total, layer: update(1, total=total), precision=self.identity.precision,
                images=None if images is None
                else images.on(str(self.fabric.device), lambda done, total: update(done, total=total)),
            )  # fmt: skip
