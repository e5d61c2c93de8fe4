"""``MODEL_CARD.md`` beside every export: data, scores, licences and limits of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recyclelora.evaluation.scores import SOURCE_VAL
from recyclelora.exchange.exports import licences
from recyclelora.exchange.exports.source import Source
from recyclelora.runs.directory import RECORD, RESULT
from recyclelora.system.typed_json import read_object

CARD = "MODEL_CARD.md"
BAD = 0.2
"""IoU below which a class is named among the limits."""


def model_card(source: Source, form: str, bench: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card's text.

    Args:
        source: the run
        form: format of the export
        bench: rows of a latency table
    """
    run, config = source.run.run_dir, source.run.config
    about = read_object(run / RECORD)
    result = read_object(run / RESULT) if (run / RESULT).is_file() else None
    scores = None if result is None else result["selection"].get(source.checkpoint)
    data, commit = config.data, (about.get("git") or {}).get("commit") or "unknown"
    lines = [
        f"# Model card: {source.about['run']}", "",
        f"{source.backbone.name} adapted with {config.adapter.name}, decoder {config.decoder.name}, "
        f"{len(data.classes.names)} classes; checkpoint {source.checkpoint}, step {source.run.step}, "
        f"seed {config.seed}; exported as {form}. Made with recyclelora, git {commit}.",
        "", "## Data", "", *_data(about, data), "", "## Scores", "", *_scores(scores, result, source.checkpoint),
        *_speed(bench), "", "## Licences", "", *_licences(about, source), "", "## Limits", "",
        *_limits(scores, result, source.checkpoint, data.classes.names),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _data(about: Mapping[str, Any], data: Any) -> list[str]:
    words = {"source": "trained on", "source_val": "validated on", "target": "scored on, never trained on"}
    rows = [
        f"| {words[d['role']]} | {d['name']} | {d['dataset']} | {d['images']} |" for d in about.get("datasets", ())
    ] or [f"| trained on | {d.label} | {d.dataset} | unknown |" for d in data.sources]
    return [
        "| | set | dataset | images |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Classes: {', '.join(data.classes.names)}.",
    ]


def _scores(scores: Mapping[str, Any] | None, result: Mapping[str, Any] | None, checkpoint: str) -> list[str]:
    if scores is None or result is None:
        return ["Not scored."]
    values = {**scores["targets"], "mean of targets": scores["mean"], "source validation": scores["source_val"]}
    further = scores.get("metrics", {})
    names = list(dict.fromkeys(key for row in further.values() for key in row))
    lines = [f"Protocol {result['protocol']}, mIoU in %{'; further metrics between 0 and 1' if names else ''}.", ""]
    lines += [f"| set | mIoU |{''.join(f' {name} |' for name in names)}", "|---" * (2 + len(names)) + "|"]
    for name, value in values.items():
        row = further.get(SOURCE_VAL if name == "source validation" else name, {})
        cells = "".join(f" {row[key]:.3g} |" if key in row else " |" for key in names)
        lines.append(f"| {name} | {'not scored' if value is None else f'{100 * value:.1f}'} |{cells}")
    if checkpoint == "best_target":
        lines += ["", "This checkpoint was chosen on the targets: the scores are no estimate for unseen images."]
    return lines


def _speed(bench: Sequence[Mapping[str, Any]]) -> list[str]:
    if not bench:
        return []
    rows = [
        f"| {r['device']} | {r['size'][0]}x{r['size'][1]} | {r['batch']} | {r['median_ms']:.1f} | {r['p90_ms']:.1f} | "
        f"{r['peak_memory_mb']:.0f} |" for r in bench
    ]  # fmt: skip
    head = "| device | image | batch | ms, median | ms, 90 % | memory of the process, MB |"
    return ["", "## Speed", "", f"Measured with {bench[0]['threads']} threads on {bench[0]['processor']}.", "",
            head, "|---|---|---|---|---|---|", *rows]  # fmt: skip


def _licences(about: Mapping[str, Any], source: Source) -> list[str]:
    b, data = source.backbone, source.run.config.data
    origin = str(about.get("weights_origin") or "")
    lines = [f"- weights {b.name}: {licences.of_weights(origin, b.name, b.model)}"]
    if source.weights is None:
        lines = [f"- weights {b.name}: random, none were downloaded"]
    lines += [f"- {name}: {licences.of_dataset(name)}" for name in dict.fromkeys(d.dataset for d in data.sources)]
    return [*lines, "- code: Apache-2.0", "",
            "An export goes under the terms of the weights it was made from; a dataset that forbids commercial use may "
            "forbid it for this model. This is no legal advice."]  # fmt: skip


def _limits(
    scores: Mapping[str, Any] | None, result: Mapping[str, Any] | None, checkpoint: str, classes: Sequence[str]
) -> list[str]:
    lines = ["- Every pixel gets one of the classes, also where it shows none of them.",
             "- It is one model of one seed; other seeds differ."]  # fmt: skip
    if scores is None or result is None:
        return lines
    targets = {name: value for name, value in scores["targets"].items() if value is not None}
    if len(targets) > 1:
        worst = min(targets, key=lambda name: targets[name])
        lines.append(f"- It is worst on {worst}: mIoU {100 * targets[worst]:.1f} %.")
    if result["selection"]["last"]["step"] == scores["step"]:
        rows = [row for name, row in result["iou_per_class"].items() if name != SOURCE_VAL] or [
            result["iou_per_class"][SOURCE_VAL]
        ]
        bad = []
        for index, name in enumerate(classes):
            known = [row[index] for row in rows if row[index] is not None]
            if not known:
                lines.append(f"- {name} was not in the images it was scored on.")
            elif sum(known) / len(known) < BAD:
                bad.append(f"{name} ({100 * sum(known) / len(known):.0f} %)")
        if bad:
            lines.append(f"- It hardly finds: {', '.join(bad)} (IoU, mean over the scored sets).")
    ece = [row["ece"] for row in scores.get("metrics", {}).values() if "ece" in row]
    lines.append(
        f"- Its confidence is off by {100 * max(ece):.0f} % on the worst set (ECE)." if ece
        else "- Whether its confidence can be trusted was not measured (`metrics=[calibration]`)."
    )  # fmt: skip
    return lines
