"""Score a finished run again, on its own targets or on others; also ``python -m recyclelora.evaluate``."""

from __future__ import annotations

from recyclelora.cli import launch
from recyclelora.schemas import EvaluateConfig


def evaluate(config: EvaluateConfig, trial: int | None = None) -> float | None:
    """Write ``<run>/evaluations/<data>-<protocol>-<checkpoint>.json``, print the table; returns the mean of targets."""
    import dataclasses
    import shutil
    import time
    from pathlib import Path

    from recyclelora.build_data import build_datasets, build_targets, class_colours
    from recyclelora.data.datasets import digest
    from recyclelora.engine.partial import PartialCounts
    from recyclelora.errors import UserError
    from recyclelora.inference import load, single_evaluator
    from recyclelora.metrics import ConfusionMatrix
    from recyclelora.open_data import mask_kinds
    from recyclelora.predictions import predict_unlabelled
    from recyclelora.progress import Reporter
    from recyclelora.results import Scores, score_table
    from recyclelora.storage import folder_inside, read_json, write_json

    reporter = Reporter()
    model = load(config.run, config.checkpoint, accelerator=config.accelerator)
    data = config.data or model.config.data
    if data.classes.names != model.config.data.classes.names:
        raise UserError(f"data={data.name} has other classes than the run was trained with")
    cache = model.config.cache
    scored = build_targets(data, cache) if config.data else build_datasets(data, cache).scored
    about = read_json(Path(config.run) / "run.json")
    run_config = dataclasses.replace(model.config, data=data)
    device = next(model.segmenter.parameters()).device
    evaluator = single_evaluator(run_config, device, about["precision"], config.num_workers)
    began = time.perf_counter()
    matrices: dict[str, ConfusionMatrix] = {}
    evaluations = folder_inside(Path(config.run), "evaluations")
    path = evaluations / f"{data.name}-{data.protocol.name}-{config.checkpoint}.json"
    stopped = path.parent / "partial" / path.stem
    dataset_digest = digest(list(scored.values()))
    key = f"{model.step} {dataset_digest} {dataclasses.asdict(data.protocol)} {evaluator.batch_size}"
    with reporter.bar("evaluating", sum(map(len, scored.values()))) as update:
        for name, dataset in scored.items():
            partial = PartialCounts(stopped / f"{name}.json", key)
            matrices[name] = evaluator(model.segmenter, dataset, update, partial)
    shutil.rmtree(stopped, ignore_errors=True)
    scores = Scores.of(model.step, matrices)
    held = about.get("source_classes")
    held_ids = None if held is None else {data.classes.names.index(name) for name in held}
    summary = {
        **scores.summary(held_ids),
        "step": scores.step,
        "checkpoint": config.checkpoint,
        "data": data.name,
        "protocol": data.protocol.name,
        "protocol_settings": dataclasses.asdict(data.protocol),
        "masks": mask_kinds(scored),
        "iou_per_class": scores.iou_per_class,
        "classes": data.classes.names,
        "dataset_digest": dataset_digest,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(path, summary)
    title = f"{Path(config.run).name} on {data.name}"
    reporter.table(score_table(title, {config.checkpoint: summary}, source_classes=held))
    folder = folder_inside(Path(config.run), "predictions")
    predict_unlabelled(model.segmenter, evaluator, scored, folder, class_colours(data), reporter)
    reporter.note(f"written: {path}")
    return scores.target_mean


def main() -> None:
    """``python evaluate.py run=<run dir> [data=...]``."""
    launch("evaluate", evaluate)


if __name__ == "__main__":
    main()
