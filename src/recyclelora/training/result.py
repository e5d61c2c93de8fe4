"""The result of a run: the one that is there already, or what is written when the training is done."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recyclelora.config.build import build_model
from recyclelora.config.movement import backbone_movement
from recyclelora.config.training import POINTERS
from recyclelora.data.build import class_colours
from recyclelora.data.open import mask_kinds
from recyclelora.evaluation.extra_metrics import ExtraMetrics, points
from recyclelora.evaluation.predictions import predict_unlabelled
from recyclelora.evaluation.scores import Scores, figure_table, incomplete, result_json, score_table
from recyclelora.models.backbones.weights import WeightsUnreadable
from recyclelora.models.state import load_trainable_state, parameter_counts, trainable_state, whole_state
from recyclelora.runs.checkpoint import pointed
from recyclelora.runs.directory import PREDICTIONS, RESULT
from recyclelora.runs.identity import note_unreadable
from recyclelora.runs.metrics_log import ENDING, FINAL
from recyclelora.runs.reuse import take_over
from recyclelora.runs.unit import Unit
from recyclelora.runs.weights import Weights, write_run_weights
from recyclelora.system.next_steps import next_steps, typed_as, with_run
from recyclelora.system.progress import Reporter, shown
from recyclelora.system.storage import write_json
from recyclelora.training.trainer import Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from recyclelora.training.run import Run


def known_result(run: Run) -> dict[str, Any] | None:
    """The result of a run that needs no training and no scoring any more.

    With ``hydra.sweeper.reuse`` also that of the same run elsewhere.
    """
    if run.config.fresh:
        return None
    result, unit = run.directory.result(), Unit.current()
    if result is None and unit is not None and unit.reuses:
        if run.fabric.is_global_zero:
            origin = take_over(run.directory.path, Path(run.config.output_dir), run.signature)
            if origin is not None:
                Reporter().note(f"the same run is finished in {shown(origin)}: its result is taken over")
        run.fabric.barrier()
        result = run.directory.result()
    if result is None or _outdated(run, result):
        return None
    if run.fabric.is_global_zero and _add_figures(run, result["selection"]):
        write_json(run.directory.path / RESULT, result)  # metrics that were not asked for when it was scored
    return result


def _add_figures(run: Run, selection: dict[str, Any]) -> bool:
    """Add to every selected checkpoint the figures of further metrics that its kept counts give; whether any is new."""
    metrics = ExtraMetrics(run.config.metrics, run.config.data.classes.names, Reporter().warn)
    before = [summary.get("metrics") for summary in selection.values()]
    for summary in selection.values():
        if figures := metrics.of_folder(run.directory.image_counts / str(summary["step"])):
            known = summary.get("metrics", {})
            summary["metrics"] = {name: known.get(name, {}) | row for name, row in figures.items()}
    return before != [summary.get("metrics") for summary in selection.values()]


def _outdated(run: Run, result: dict[str, Any]) -> bool:
    """Whether a finished run is to be scored again, because its scored sets are not what they were."""
    then, now = result.get("scored_digests", {}), run.files.scored_digests()
    changed = [name for name in then if now.get(name, then[name]) != then[name]]
    if not changed:
        return False
    can = pointed(run.directory.checkpoints, POINTERS[0]) is not None
    Reporter(enabled=run.fabric.is_global_zero).warn(
        f"{', '.join(changed)}: other files than when this run was scored; "
        + ("scoring again, the earlier result is kept beside the new one" if can else "its checkpoints are gone")
    )
    return can


def write_result(run: Run, trainer: Trainer) -> dict[str, Any]:
    """Score the full sets of a run that has trained, write adapter and pictures, and last of all the result.

    Raises:
        Stopped: a signal, or the driver of the sweep, wants this run to stop.
        UserError: images cannot be read; all else is done.
    """
    first, scorer, directory = run.fabric.is_global_zero, trainer.scorer, run.directory
    trainer.hold_kept_weights()
    trained = whole_state(trainable_state(trainer.segmenter))
    if first:  # of use whatever becomes of the scores
        write_run_weights(
            directory.path, Weights(trained, trainer.initial, trainer.step), run.config,
            signature=run.signature, weights_sha256=run.identity.weights_sha256,
        )  # fmt: skip
    try:
        selection = scorer.selected(trainer.step)
    finally:
        if first:
            note_unreadable(directory, run.files, scorer.unreadable_names())
    result = _content(run, trainer, selection)
    with scorer.together():
        if first:
            result["movement"] = _movement(run, trainer, trained)
            _tell_the_end(run, trainer, selection["last"], result)
    run.fabric.barrier()
    return result


def _tell_the_end(run: Run, trainer: Trainer, last: Scores, result: dict[str, Any]) -> None:
    """Record the final scores, draw and predict what is asked for, and write the result."""
    scorer, directory = trainer.scorer, run.directory
    # on the full sets, where the curves may show subsets: what one compares runs by
    _add_figures(run, result["selection"])
    figures = result["selection"]["last"].get("metrics", {})
    trainer.metrics.append(trainer.step, last.points(FINAL) | points(figures, ENDING))
    with trainer.reporter.bar("drawing", 1):
        trainer.pictures.finish(last, scorer.matrices.get(trainer.step, {}))
    unread = predict_unlabelled(
        trainer.segmenter, scorer.evaluator, run.datasets.scored, directory.path / PREDICTIONS,
        class_colours(run.config.data), trainer.reporter, trainer.stop.requested,
    )  # fmt: skip
    if unread:
        raise incomplete(unread, "the training is finished and kept")
    write_json(directory.path / RESULT, result)


def _movement(run: Run, trainer: Trainer, trained: dict[str, Tensor]) -> float | None:
    """How far the weights have moved; None, with a warning, where those of the start cannot be read any more."""
    try:
        segmenter = trainer.segmenter
        if run.config.trainer.strategy == "fsdp":  # other processes have the most of it: built once more from the run
            model = build_model(run.config, run.weights, initial=trainer.initial, precision=run.identity.precision)
            segmenter = model.segmenter
            load_trainable_state(segmenter, trained)
        return backbone_movement(run.config, run.weights, segmenter.backbone.model)
    except (OSError, WeightsUnreadable) as error:
        trainer.reporter.warn(f"no movement of the weights in {RESULT}: {error}")
        return None


def _content(run: Run, trainer: Trainer, selection: dict[str, Scores]) -> dict[str, Any]:
    """Of ``result.json``."""
    data = run.config.data
    about = {
        "protocol": data.protocol.name,
        "protocol_settings": dataclasses.asdict(data.protocol),
        "masks": mask_kinds(run.datasets.scored),
        "steps": trainer.step,
        **trainer.spent.figures(),
        "params": parameter_counts(trainer.segmenter),
        "signature": run.signature,
        "seed": run.config.seed,
        "git": (run.description["git"] or {}).get("commit"),
        **run.digests,
        "weights_sha256": run.identity.weights_sha256,
    }
    return result_json(selection, run.config.objective, data.classes.names, about, run.source_classes)


def tell_result(run: Run, result: dict[str, Any], state: str, reporter: Reporter, *, alone: bool) -> float | None:
    """Show the scores of a run, and if it is ``alone`` what to do next; returns its objective."""
    c = run.config
    title = f"{c.adapter.name} on {c.backbone.name}, {c.data.name}, seed {c.seed} ({state})"
    note = f"protocol {result['protocol']}, {result['steps']} steps, {result['seconds']:.0f} s"
    columns = _distinct(result["selection"])
    reporter.table(score_table(title, columns, note, result.get("source_classes")))
    if figures := figure_table(columns):
        reporter.table(figures)
    reporter.note(f"results and pictures: {shown(run.directory.path)}")
    if alone and Unit.current() is None:  # trials of a sweep are told together
        reporter.note(what_next(run))
    value = result["objective"]
    return None if value is None else float(value)


def what_next(run: Run) -> str:
    """Commands that take a finished run."""
    path, fit = run.directory.path, run.config.data.protocol.fit.get("folder")
    return next_steps(
        *with_run(path, "predict", "evaluate", "export", size=None if fit is None else fit[0]),
        ("compare runs", typed_as("report", f"runs={shown(path.parent)}/*")),
    )


def _distinct(selection: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Selected checkpoints that are different ones: a column for each step, named by all that chose it."""
    steps: dict[int, list[str]] = {}
    for name, summary in selection.items():
        steps.setdefault(summary["step"], []).append(name)
    return {" = ".join(names): selection[names[0]] for names in steps.values()}
