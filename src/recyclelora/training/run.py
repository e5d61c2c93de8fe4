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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from rich.table import Table

from recyclelora.config.build import Model, build_model, check_shapes, locate_weights
from recyclelora.config.compose import home
from recyclelora.config.run import Config
from recyclelora.data.build import Datasets, build_datasets, class_colours
from recyclelora.data.identity import Files
from recyclelora.data.labels import IGNORE
from recyclelora.data.open import describe_datasets, mask_kinds, own_files, with_first_masks
from recyclelora.data.preparation import check_labels, render_scenes, scenes_to_render
from recyclelora.data.soundness import samples_of, sound_files, unusable_files
from recyclelora.evaluation.evaluator import Evaluator, Stopped
from recyclelora.evaluation.load import Weights, write_run_weights
from recyclelora.evaluation.predictions import predict_unlabelled
from recyclelora.evaluation.scores import POINTERS, SHOWN, incomplete, result_json, score_table
from recyclelora.models.backbones.weights import WeightsFile
from recyclelora.models.state import trainable_state
from recyclelora.runs.checkpoint import Checkpoint, newest_checkpoint, pointed
from recyclelora.runs.directory import LOG, RESULT, RunDirectory, is_finished
from recyclelora.runs.end import noted_end
from recyclelora.runs.identity import Identity, earlier_run, find_run, note_unreadable, signature
from recyclelora.runs.mailbox import Unit
from recyclelora.runs.metrics_log import FINAL
from recyclelora.runs.record import add_to_record, claimed, describe, record
from recyclelora.runs.reuse import take_over
from recyclelora.system.devices import (
    check_launched_processes,
    no_lost_process,
    precision_plugin,
    resolve_accelerator,
    resolve_precision,
)
from recyclelora.system.errors import BrokenFile, Interrupted, Pruned, UserError
from recyclelora.system.hardware import peak_memory_mb
from recyclelora.system.progress import Reporter, shown
from recyclelora.system.storage import set_aside, write_json
from recyclelora.tracking import Feeder, mirrored
from recyclelora.tracking.process import Follower, asked_for, followed
from recyclelora.training.trainer import Session
from recyclelora.training.warm_start import Start, apply_start, check_start, read_start

FEW_SCENES = 16
"""As many are rendered by the loaders themselves before other processes have started."""


@dataclass(frozen=True)
class Run:
    """A configuration with all that decides which run it is."""

    config: Config
    fabric: Fabric
    datasets: Datasets
    files: Files
    weights: WeightsFile | None
    start: Start | None
    identity: Identity
    signature: str
    """16 hex digits"""
    directory: RunDirectory
    remark: str | None = None
    """what the user should know before it begins"""

    @classmethod
    def identify(cls, config: Config, trial: int | None) -> Run:
        """Open data and weights and find out which run this is; builds no model."""
        unit = Unit.current()
        if unit is not None:  # fresh=true set the old sweep aside; its trials go on when they come back
            config = dataclasses.replace(config, fresh=False)
        t = config.trainer
        accelerator = resolve_accelerator(t.accelerator)
        precision = resolve_precision(t.precision, accelerator)
        world_size = t.devices * t.num_nodes
        check_launched_processes(t.devices, t.num_nodes)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its remarks on precision are ours to make
        warnings.filterwarnings("ignore", message="The `srun` command is available")  # one process needs no srun
        try:
            fabric = Fabric(
                accelerator=accelerator, devices=t.devices, num_nodes=t.num_nodes,
                plugins=[precision_plugin(precision, accelerator)],
                strategy=DDPStrategy(timeout=timedelta(seconds=t.stall_timeout)) if world_size > 1 else "auto",
            )  # fmt: skip
            fabric.launch()
        except (RuntimeError, ValueError, MisconfigurationException) as error:
            asked = f"trainer.accelerator={t.accelerator} trainer.devices={t.devices}"
            raise UserError(f"{asked}: {str(error).splitlines()[0]}") from error
        datasets = build_datasets(config.data, config.cache)
        check_shapes(config)
        weights = locate_weights(config.backbone)
        start = read_start(config.init_from) if config.init_from else None
        if start is not None:
            check_start(start, config, weights.sha256 if weights else None)
        files = Files.of(datasets.sources, datasets.scored)
        identity = Identity(
            weights.sha256 if weights else None, files.trained_on(), precision, world_size,
            start.sha256 if start else None,
        )  # fmt: skip
        directory, identity = find_run(config, identity, files, trial, unit)
        may_have_begun = not directory.path.exists() and directory.alike()
        if may_have_begun and (earlier := with_first_masks(config.data, datasets.all)) is not None:
            before = dataclasses.replace(config, data=earlier)
            opened = build_datasets(earlier, config.cache)
            its_files = Files.of(opened.sources, opened.scored)
            its = dataclasses.replace(identity, dataset_digest=its_files.trained_on())
            place, its = find_run(before, its, its_files, trial, unit)
            if place.path.exists():  # it goes on with the masks that it has read so far
                config, datasets, files, directory, identity = before, opened, its_files, place, its
        remark = None
        if unit is not None:
            if fabric.is_global_zero:
                unit.runs_in(directory.path)
        elif not directory.path.exists():
            remark = earlier_run(config, identity, files, trial)
        sign = signature(config, identity)
        return cls(config, fabric, datasets, files, weights, start, identity, sign, directory, remark)

    # --- the way of a run ---------------------------------------------------------------------------------------------

    def execute(self) -> float | None:
        """Train, or resume, or report the finished result; returns the objective."""
        result = None if self.config.fresh else self._known_result()
        if result is not None and not self._outdated(result):
            self._report(Reporter(enabled=self.fabric.is_global_zero), result, "already finished")
            return _objective(result)
        trackers = asked_for(self.config.tracking)
        first = self.fabric.is_global_zero
        with no_lost_process(self.fabric), claimed(self.directory, self.config) if first else contextlib.nullcontext():
            self.fabric.barrier()
            return self._train(trackers if first else [])

    def _outdated(self, result: dict[str, Any]) -> bool:
        """Whether a finished run is to be scored again, because its scored sets are not what they were."""
        then, now = result.get("scored_digests", {}), self.files.scored_digests()
        changed = [name for name in then if now.get(name, then[name]) != then[name]]
        if not changed:
            return False
        reporter = Reporter(enabled=self.fabric.is_global_zero)
        can = pointed(self.directory.checkpoints, POINTERS[0]) is not None
        reporter.warn(
            f"{', '.join(changed)}: other files than when this run was scored; "
            + ("scoring again, the earlier result is kept beside the new one" if can else "its checkpoints are gone")
        )
        return can

    def _known_result(self) -> dict[str, Any] | None:
        """The run's own, or with ``hydra.sweeper.reuse`` that of the same run elsewhere."""
        result = self.directory.result()
        unit = Unit.current()
        if result is not None or unit is None or not unit.reuses:
            return result
        if self.fabric.is_global_zero:
            origin = take_over(self.directory.path, Path(self.config.output_dir), self.signature)
            if origin is not None:
                Reporter().note(f"the same run is finished in {shown(origin)}: its result is taken over")
        self.fabric.barrier()
        return self.directory.result()

    def _train(self, trackers: Sequence[str]) -> float | None:
        reporter = Reporter(self.directory.path / LOG, enabled=self.fabric.is_global_zero)
        reporter.note(f"run directory: {shown(self.directory.path)}")
        if self.remark is not None:
            reporter.warn(self.remark)
        if self.fabric.is_global_zero:
            if is_finished(self.directory.path):
                set_aside(self.directory.path / RESULT)
            for remark in record(self.directory, self.description):
                reporter.warn(remark)
            files = own_files(self.config.data)
            if files is not None and (unused := files.line()) is not None:
                reporter.note(unused)
        checkpoint = newest_checkpoint(self.directory.checkpoints, reporter.warn)
        mirror_here = self.config.tracking.mlflow and self.fabric.is_global_zero
        noting = noted_end(self.directory.path) if self.fabric.is_global_zero else contextlib.nullcontext()
        with (
            mirrored(self.directory.path, mirror_here, self.config.tracking.uri) as mirror,
            noting,
            self._noting_unreadable(),
        ):
            self._prepare_data(reporter, begins=checkpoint is None)
            began = time.perf_counter()
            session = self._session(reporter, checkpoint)
            with followed(self.directory.path, trackers) as followers:
                result = self._result(session, reporter, began)
        self._report(reporter, result, "finished")
        self._report_mirror(reporter, mirror)
        self._report_followers(reporter, followers)
        return _objective(result)

    def _result(self, session: Session, reporter: Reporter, began: float) -> dict[str, Any]:
        """Train and score to the end.

        Raises:
            Interrupted: a stop was asked for, and everything is saved.
        """
        try:
            if session.fit(clock=lambda: time.perf_counter() - began):
                with session.stop:
                    return self._finish(session, reporter, began)
        except Stopped:
            pass
        raise self._interrupted(session)

    @contextlib.contextmanager
    def _noting_unreadable(self) -> Iterator[None]:
        """Let this run be found again when a file of what it trains on has been mended."""
        try:
            yield
        except BrokenFile as error:
            note_unreadable(self.directory, self.files, error.files)
            raise UserError(f"{error}\nmend it; the same command then goes on") from error

    def _prepare_data(self, reporter: Reporter, *, begins: bool) -> None:
        """Render the scenes of ``data=streets`` that no run has needed before; look at the files of one that begins."""
        jobs = scenes_to_render(self.datasets.all) if self.fabric.is_global_zero else []
        if len(jobs) > FEW_SCENES:
            with reporter.bar("rendering streets (once)", len(jobs)) as update:
                render_scenes(jobs, update)
        if self.fabric.is_global_zero:
            if begins:
                self._check_files(reporter)
            check_labels(self.datasets.sources, self.config.data.classes.names)
        self.fabric.barrier()

    def _check_files(self, reporter: Reporter) -> None:
        """Refuse files that would end this run, or its scoring, hours later.

        Raises:
            UserError: naming them.
        """
        remembered, every = sound_files(self.config.cache), self.datasets.all
        if remembered.know(every):
            return
        with reporter.bar("looking at all files (once)", len(samples_of(every))) as update:
            broken = unusable_files(every, update)
        if not broken:
            remembered.remember(every)
            return
        note_unreadable(self.directory, self.files, (name for error in broken for name in error.files))
        shown = [str(error) for error in broken[:SHOWN]]
        more = [f"and {len(broken) - SHOWN} more"] if len(broken) > SHOWN else []
        head = f"{len(broken)} samples of the data cannot be used (inspect_data.py tells all about them):"
        raise UserError("\n".join([head, *shown, *more]))

    def _session(self, reporter: Reporter, checkpoint: Checkpoint | None) -> Session:
        """Build the model, put it where it runs, and go back to the checkpoint if there is one."""
        model = self._model(reporter, checkpoint)
        remarks = apply_start(model.segmenter, self.start, self.config.data.classes.names) if self.start else []
        for remark in remarks:
            reporter.note(f"init_from: {remark}")
        classes = self.config.data.classes
        t = self.config.trainer
        evaluator = Evaluator(
            self.config.data.protocol, len(classes.names), IGNORE,
            self.fabric.device, self.fabric.autocast, lambda tensor: _summed(self.fabric, tensor),
            t.eval_batch_size, t.num_workers, self.fabric.global_rank, self.fabric.world_size, t.eval_window_batch,
        )  # fmt: skip
        session = Session(self.config, self.fabric, model, self.datasets, evaluator, self.directory, reporter)
        counts = session.parameter_counts()
        trainable, decoder = counts["backbone_trainable"], counts["decoder"]
        reporter.note(f"trainable parameters: {trainable:,} in the backbone, {decoder:,} in the decoder")
        groups = session.parameter_groups()
        reporter.table(_group_table(groups))
        if self.fabric.is_global_zero:
            add_to_record(self.directory, {"parameter_groups": groups})
        if checkpoint is not None:
            session.restore(checkpoint)
        if self.fabric.is_global_zero:
            if not session.metrics.rewind(session.step, scored=not session.unscored):
                reporter.warn(
                    f"{session.metrics.path}: has no points up to step {session.step}; the curves begin there"
                )
            session.pictures.rewind(session.step)
        if checkpoint is not None:
            reporter.note(f"resuming after step {session.step} of {t.max_steps}")
        return session

    def _model(self, reporter: Reporter, checkpoint: Checkpoint | None) -> Model:
        origin = self.weights.origin if self.weights else "random weights"
        reporter.note(
            f"backbone: {self.config.backbone.name} ({origin}), adapter: {self.config.adapter.name}, "
            f"precision: {self.identity.precision}, device: {self.fabric.device}"
        )
        initial = checkpoint.tensors["initial"] if checkpoint else None
        if initial is None and self.start is not None:
            initial = self.start.weights.initial
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(record=True) as remarks,
            reporter.bar("decomposing layers", 1) as update,
        ):
            torch.manual_seed(self.config.seed)
            model = build_model(
                self.config, self.weights, initial=initial,
                progress=lambda done, total, layer: update(1, total=total), precision=self.identity.precision,
            )  # fmt: skip
        for text in dict.fromkeys(str(w.message) for w in remarks if issubclass(w.category, UserWarning)):
            reporter.warn(text)
        return model

    def _finish(self, session: Session, reporter: Reporter, began: float) -> dict[str, Any]:
        """Score the full sets, write adapter and pictures, and last of all the result."""
        session.hold_kept_weights()
        if self.fabric.is_global_zero:
            self._write_adapter(session)  # first: it is of use whatever becomes of the scores
        try:
            selection = session.final_scores()
        finally:
            if self.fabric.is_global_zero:
                broken = (error for errors in session.unreadable.values() for error in errors)
                note_unreadable(self.directory, self.files, (name for error in broken for name in error.files))
        about = {
            "protocol": self.config.data.protocol.name,
            "protocol_settings": dataclasses.asdict(self.config.data.protocol),
            "masks": mask_kinds(self.datasets.scored),
            "steps": session.step,
            "seconds": round(session.seconds + time.perf_counter() - began, 1),
            "params": session.parameter_counts(),
            "peak_memory_mb": round(peak_memory_mb(self.fabric.device)),
            "signature": self.signature,
            "seed": self.config.seed,
            "git": (self.description["git"] or {}).get("commit"),
            "dataset_digest": self.files.all_together(),
            "training_digest": self.files.trained_on(),
            "scored_digests": self.files.scored_digests(),
            "weights_sha256": self.identity.weights_sha256,
        }
        classes = self.config.data.classes.names
        held = self.datasets.source_classes(len(classes))
        result = result_json(selection, self.config.objective, classes, about, held)
        if self.fabric.is_global_zero:
            # on the full sets, where the curves may show subsets: what one compares runs by
            session.metrics.append(session.step, selection["last"].points(FINAL))
            with reporter.bar("drawing", 1):
                session.pictures.finish(selection["last"], session.matrices.get(session.step, {}))
            unread = predict_unlabelled(
                session.segmenter, session.evaluator, self.datasets.scored, self.directory.predictions,
                class_colours(self.config.data), reporter, session.stop.requested,
            )  # fmt: skip
            if unread:
                raise incomplete(unread, "the training is finished and kept")
            write_json(self.directory.path / RESULT, result)
        self.fabric.barrier()
        return result

    def _write_adapter(self, session: Session) -> None:
        """``adapter.safetensors`` and ``adapter_config.json``."""
        weights = Weights(trainable_state(session.segmenter), session.initial, session.step)
        write_run_weights(
            self.directory.path, weights, self.config,
            signature=self.signature, weights_sha256=self.identity.weights_sha256,
        )  # fmt: skip

    # --- words --------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """What ``run.json`` tells of this launch; the code's state is the one it was started with."""
        names = self.config.data.classes.names
        held = self.datasets.source_classes(len(names))
        extra = {
            "weights_origin": self.weights.origin if self.weights else None,
            "datasets": describe_datasets(self.config.data, self.datasets.all),
            "source_classes": None if held is None else [names[index] for index in sorted(held)],
            "dataset_digest": self.files.all_together(),
            "training_digest": self.files.trained_on(),
            "scored_digests": self.files.scored_digests(),
        }
        return describe(self.config, self.identity, self.signature, extra, home())

    def _interrupted(self, session: Session) -> Interrupted:
        unit = Unit.current()
        if unit is not None and unit.stop_reason() == "pruned":
            return Pruned(f"pruned after step {session.step}")
        number = session.stop.received or 0  # 0: another process was asked
        command = "the same command without fresh=true" if self.config.fresh else "the same command"
        text = f"stopped by signal {number} after step {session.step}; {command} goes on from there"
        return Interrupted(text, 128 + number)

    def _report(self, reporter: Reporter, result: dict[str, Any], state: str) -> None:
        c = self.config
        title = f"{c.adapter.name} on {c.backbone.name}, {c.data.name}, seed {c.seed} ({state})"
        note = f"protocol {result['protocol']}, {result['steps']} steps, {result['seconds']:.0f} s"
        columns = _distinct(result["selection"])
        reporter.table(score_table(title, columns, note, result.get("source_classes")))
        reporter.note(f"results and pictures: {shown(self.directory.path)}")

    def _report_mirror(self, reporter: Reporter, mirror: Feeder | None) -> None:
        if mirror is not None and not mirror.sent:
            reporter.warn(
                f"MLflow does not have everything (see mlflow.log); later: "
                f"python -m recyclelora.tracking sync {shown(self.directory.path)}"
            )

    def _report_followers(self, reporter: Reporter, followers: Sequence[Follower]) -> None:
        for kind in (follower.kind for follower in followers if not follower.sent):
            reporter.warn(
                f"{kind} does not have everything (see {kind}.log); later: "
                f"python -m recyclelora.trackers sync {kind} {shown(self.directory.path)}"
            )


def _group_table(groups: list[dict[str, Any]]) -> Table:
    """What the optimizer does with which parameters."""
    table = Table("parameter group", title="optimizer", title_justify="left")
    for heading in ("lr", "weight decay", "parameters"):
        table.add_column(heading, justify="right")
    for g in groups:
        table.add_row(g["name"], f"{g['lr']:g}", f"{g['weight_decay']:g}", f"{g['parameters']:,}")
    return table


def _distinct(selection: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Selected checkpoints that are different ones: a column for each step, named by all that chose it."""
    steps: dict[int, list[str]] = {}
    for name, summary in selection.items():
        steps.setdefault(summary["step"], []).append(name)
    return {" = ".join(names): selection[names[0]] for names in steps.values()}


def _objective(result: dict[str, Any]) -> float | None:
    value = result["objective"]
    return None if value is None else float(value)


def _summed(fabric: Fabric, tensor: torch.Tensor) -> torch.Tensor:
    total = fabric.all_reduce(tensor.to(fabric.device), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    return total
