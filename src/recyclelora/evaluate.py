"""Score a finished run again, on its own targets or on others; also ``python -m recyclelora.evaluate``."""

from __future__ import annotations

from recyclelora.cli import launch
from recyclelora.schemas import EvaluateConfig


def evaluate(config: EvaluateConfig, trial: int | None = None) -> float | None:
    """Write ``<run>/evaluations/<data>-<protocol>.json`` and print the table; returns the targets' mean mIoU."""
    import dataclasses
    import time
    from pathlib import Path

    from recyclelora.build import build_datasets, build_targets
    from recyclelora.data.datasets import digest
    from recyclelora.errors import UserError
    from recyclelora.inference import load, single_evaluator
    from recyclelora.metrics import ConfusionMatrix
    from recyclelora.progress import Reporter
    from recyclelora.results import Scores, score_table
    from recyclelora.storage import read_json, write_json

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
    with reporter.bar("evaluating", sum(map(len, scored.values()))) as update:
        for name, dataset in scored.items():
            matrices[name] = evaluator(model.segmenter, dataset, update)
    scores = Scores.of(model.step, matrices)
    path = Path(config.run) / "evaluations" / f"{data.name}-{data.protocol.name}-{config.checkpoint}.json"
    path.parent.mkdir(exist_ok=True)
    summary = {
        **scores.summary(),
        "step": scores.step,
        "checkpoint": config.checkpoint,
        "data": data.name,
        "protocol": data.protocol.name,
        "iou_per_class": scores.iou_per_class,
        "classes": data.classes.names,
        "dataset_digest": digest(list(scored.values())),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_json(path, summary)
    reporter.table(score_table(f"{Path(config.run).name} on {data.name}", {config.checkpoint: summary}))
    reporter.note(f"written: {path}")
    return scores.target_mean


def main() -> None:
    """``python evaluate.py run=<run dir> [data=...]``."""
    launch("evaluate", evaluate)


if __name__ == "__main__":
    main()
