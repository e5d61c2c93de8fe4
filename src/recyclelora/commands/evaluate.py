"""Score a finished run again, on its own targets or on others; also ``python -m recyclelora.evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recyclelora.runs.directory import EVALUATIONS, PARTIAL, PREDICTIONS, RECORD
from recyclelora.system.stopping import StopRequest, ctrl_c_in_one_line

if TYPE_CHECKING:
    from recyclelora.config.commands import EvaluateConfig


def evaluate(config: EvaluateConfig, trial: int | None = None) -> float | None:
    """Write ``<run>/evaluations/<data>-<protocol>-<checkpoint>-<identity>.json``; returns the mean of the targets.

    Every question (weights, targets, corruption, subset, place of the data, reading of masks, protocol, precision) has
    a file of its own. A scoring that was stopped goes on where it was.

    Raises:
        UserError: images cannot be read; all others are scored.
        Interrupted: a signal asked to stop; what was counted is kept.
    """
    import dataclasses
    import shutil
    import time
    from pathlib import Path

    from recyclelora.data.build import build_datasets, build_targets, class_colours
    from recyclelora.data.open import mask_kinds
    from recyclelora.evaluation.evaluator import Stopped
    from recyclelora.evaluation.load import Question, load, single_evaluator
    from recyclelora.evaluation.metrics import ConfusionMatrix
    from recyclelora.evaluation.predictions import predict_unlabelled
    from recyclelora.evaluation.scores import Scores, incomplete, score_table
    from recyclelora.system.errors import BrokenFile, Interrupted, UserError
    from recyclelora.system.progress import Reporter
    from recyclelora.system.storage import folder_inside, read_json, write_json

    reporter = Reporter()
    run = Path(config.run)
    model = load(run, config.checkpoint, accelerator=config.accelerator)
    data = config.data or model.config.data
    names = data.classes.names
    if names != model.config.data.classes.names:
        raise UserError(f"data={data.name} has other classes than the run was trained with")
    cache = model.config.cache
    scored = build_targets(data, cache) if config.data else build_datasets(data, cache).scored
    about = read_json(run / RECORD)
    device = next(model.segmenter.parameters()).device
    run_config = dataclasses.replace(model.config, data=data)
    evaluator = single_evaluator(run_config, device, about["precision"], config.num_workers)
    question = Question(model, data, scored, about["precision"])
    name = question.name(config.checkpoint)
    evaluations = folder_inside(run, EVALUATIONS)
    path, kept = evaluations / f"{name}.json", evaluations / PARTIAL / name
    began = time.perf_counter()
    matrices: dict[str, ConfusionMatrix] = {}
    broken: list[BrokenFile] = []
    stop = StopRequest()
    try:
        with stop:
            with reporter.bar("evaluating", sum(map(len, scored.values()))) as update:
                for key, dataset in scored.items():
                    partial = question.kept(kept, key, evaluator.batch_size)
                    matrices[key] = evaluator(
                        model.segmenter, dataset, update, partial, broken=broken, stop=stop.requested
                    )
            unread = predict_unlabelled(
                model.segmenter, evaluator, scored, folder_inside(run, PREDICTIONS) / name, class_colours(data),
                reporter, stop.requested,
            )  # fmt: skip
    except Stopped:
        number = stop.received or 0
        raise Interrupted(
            f"stopped by signal {number}; what was counted is kept: the same command goes on from there", 128 + number
        ) from None
    if broken or unread:
        raise incomplete([*broken, *unread], "nothing is written yet")
    shutil.rmtree(kept, ignore_errors=True)
    scores = Scores.of(model.step, matrices)
    held = about.get("source_classes")
    summary = {
        **scores.summary(None if held is None else {names.index(held_name) for held_name in held}),
        "step": scores.step,
        "checkpoint": config.checkpoint,
        "masks": mask_kinds(scored),
        "iou_per_class": scores.iou_per_class,
        **question.to_json(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(path, summary)
    title = f"{run.name} on {data.name}"
    reporter.table(score_table(title, {config.checkpoint: summary}, source_classes=held))
    reporter.note(f"written: {path}")
    return scores.target_mean


def main() -> None:
    """``python evaluate.py run=<run dir> [data=...]``."""
    with ctrl_c_in_one_line("evaluate"):
        from recyclelora.commands.launch import launch

        launch("evaluate", evaluate)


if __name__ == "__main__":
    main()
