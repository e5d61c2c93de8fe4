"""Numbers in docs/performance.md and docs/sweeps.md are those of the committed measurements, rounded as printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from recyclelora.config.compose import home

NUMBER = re.compile(r"\d+(?:\.\d+)?")
FORMS = {
    "RecycleLoRA 32+4, the published two branches": "two_branches", "one concatenated branch": "concatenated",
    "**RecycleLoRA 32+4, fused, here**": "recyclelora", "LoRA family, rank 16": "lora_16", "MiCA, rank 16": "mica_16",
    "OPLoRA, rank 16": "oplora_16", "KaSA, rank 16": "kasa_16", "DeLoRA, rank 16": "delora_16",
    "LoRA-XS, rank 16": "lora_xs_16", "DoRA, rank 16": "dora_16", "HiRA, rank 16": "hira_16",
    "VeRA, rank 256": "vera_256", "SVFT": "svft", "AdaLoRA, rank 24": "adalora_24", "Rein": "rein", "SET": "set",
    "Causal-Tune": "causal_tune", "full fine-tuning": "full",
}  # fmt: skip
"""Beginning of a row -> form in adapter_step.json."""


@cache
def measured(name: str) -> Any:
    return json.loads((home() / f"benchmarks/{name}.json").read_text())


def adapter_steps() -> Iterator[tuple[str, list[float]]]:
    kinds = [f"{kind}_{tokens}_tokens" for kind in ("float32", "bfloat16") for tokens in (1029, 4116)]
    for row, form in FORMS.items():
        yield f"| {row}", [measured("adapter_step")[kind][form]["ratio"] for kind in kinds]


def decompositions() -> Iterator[tuple[str, list[float]]]:
    for size in "SBL":
        took = measured("rrqr")[f"vit_{size}_spread_1"]["cpu_seconds"]
        usual, ours, single = took["published_float32"], took["project_float64"], took["project_float32"]
        yield f"| decompose ViT-{size}, float64 (float32)", [usual, ours, single, usual / ours, usual / single]
    for row, size, usual, ours in (
        ("decompose ViT-g, float64", "g", "rrqr", "rrqr"),
        ("PiSSA, MiLoRA, SoMA: rank 16 of ViT-L, float64", "L", "svd", "svd_major"),
        ("OLoRA: rank 16 of ViT-L, float64", "L", "qr", "qr"),
    ):
        took = measured("initialisations")[f"vit_{size}"]["cpu_seconds"]
        pair = took[f"usual {usual} float32"], took[ours]
        yield f"| {row}", [*pair, pair[0] / pair[1]]
    usual = measured("rrqr")["vit_L_spread_1"]["cpu_seconds"]["published_float32"]
    again = measured("rrqr")["cache_vit_L"]["second_run_one_thread_wall_seconds"]
    yield "| the same ViT-L again, from the cache, one thread", [usual, again, usual / again]


def others() -> Iterator[tuple[str, list[float]]]:
    for row, load in (("nothing else runs", "without_busy_processes"), ("six busy", "beside_6_busy_processes")):
        steps = measured("shared_cpu")[load]
        yield f"| {row}", [steps[way]["wall_seconds"] for way in ("ours", "default")]
    for row, kind in (("PNG 1914x1052 (GTAV-like)", "png"), ("JPEG 1280x720 (BDD100K-like)", "jpeg")):
        yield f"| {row}", list(measured("data_pipeline")["images_per_second"][kind].values())
    counts = measured("confusion")["images_per_second"]
    ours, rival = [c["project"] for c in counts.values()], [c["histc"] for c in counts.values()]
    yield "matrix takes", [*ours, 1024, 2048, min(c["torchmetrics"] for c in counts.values()), *rival]
    forms = list(measured("train_step-cpu")["forms"].values())
    yield "(DINOv2-S, Mask2Former, 128x256, batch 2) is", [forms[1]["faster_than_published"]]
    yield "(float32, two branches, eager),", [forms[2]["faster_than_published"]]
    yield "times with bfloat16,", [forms[3]["faster_than_published"]]
    now, before = (measured("first_step")[when]["best"] for when in ("now", "before"))
    yield "first training step of the demo's setting is done", [now["first_step"], now["finished_run_reported"]]
    yield "before imports stopped looking for garbage it was", [before["first_step"], before["finished_run_reported"]]
    ratios = [d["ratio"] for d in measured("channels_last")["decoders"].values()]
    yield "convolutions on a CPU:", [min(ratios), max(ratios)]
    exported = [m["exported_ratio"] for m in measured("export_latency")["measured"].values()]
    yield "An exported backbone takes", [min(exported), max(exported)]


def sweeps() -> Iterator[tuple[str, list[float]]]:
    took, unequal = (measured("sweep_overhead")[k] for k in ("overhead_ms_per_trial", "unequal_32_trials_seconds"))
    yield "| a trial besides its training, one at a time", [took["recyclelora x1"], took["stock in process"]]
    yield "| the same, two at a time", [took[f"{k} x2"] for k in ("recyclelora", "stock joblib", "stock submitit")]
    yield "two at a time (", [unequal["sum by 2"]]
    yield (
        "of work for each of the two places)",
        [unequal[f"{k} x2"] for k in ("recyclelora", "stock joblib", "stock submitit")],
    )
    large = measured("sweep_large")
    yield "the driver takes", [large["recyclelora"]["peak_memory_mb"], large["recyclelora"]["first_trial_s"]]
    yield "and begins after 8 s (", [large["recyclelora, the study is rebuilt"]["first_trial_s"]]


def memory() -> Iterator[tuple[str, list[float]]]:
    found = measured("memory_plan")
    plans = [found["plan"][strategy] for strategy in ("ddp", "fsdp")]
    parts = {
        "frozen weights, float32": "frozen", "adapters, decoder, their": "learning",
        "initial factors, which the layers": "initial_factors", "kept of the decoder": "decoder",
    }  # fmt: skip
    for row, part in parts.items():
        yield f"| {row}", [plan["parts"][part] / 1e9 for plan in plans]
    yield "| buckets of DDP", [(plan["parts"]["buckets"] + plan["parts"]["gathered"]) / 1e9 for plan in plans]
    for way, row, total in (
        ("none", "kept of the blocks", "**together**"),
        ("checkpointing", "kept of them with", "**with `trainer.checkpointing=true` together**"),
    ):
        yield f"| {row}", [plan["activations"][way] / 1e9 for plan in plans]
        yield f"| {total}", [plan["total"][way] / 1e9 for plan in plans]
    yield "| weights, gradients and moments", [found["full_states"][strategy] / 1e9 for strategy in ("ddp", "fsdp")]
    yield "Frozen weights in bfloat16 would save", [plans[1]["parts"]["frozen"] / 2e9]
    yield "(safetensors,", [found["host"]["backbone"] / 1e9]
    yield "each has a copy:", [found["processes"] * found["host"]["backbone"] / 1e9]
    yield "The first process decomposes, with", [found["host"]["decomposing_largest_layer"] / 1e9]


def pauses() -> Iterator[tuple[str, list[float]]]:
    found = measured("multi_fidelity-streets")["algorithms"]
    rows = {
        "| to the end": "none", "| `median`": "median", "| `successive_halving`": "successive halving",
        "| **`asha`**": "asha", "| `hyperband`": "hyperband", "| `tpe`, to the end": "none, tpe",
        "| **`tpe` and `asha`**": "asha, tpe",
    }  # fmt: skip
    for row, way in rows.items():
        behind = [found[way][f"regret_after_{share}_of_all_steps"]["mean"] for share in ("0.111", "0.333")]
        yield row, [100 * found[way]["share_of_all_steps"], *(100 * regret for regret in behind)]
    real = measured("multi_fidelity-streets")["real_sweep"]
    yield "A real sweep of", [real["trials"]]
    yield "with `asha` took", [100 * real["share_of_all_steps"]]
    assert real["regret"] == 0


def races() -> Iterator[tuple[str, list[float]]]:
    own = measured("racing")["sweeper"]
    wrong = [
        100 * way["any_false_claim"] for kind in own["results"].values() for e in kind.values() for way in e.values()
    ]
    yield "collapsing runs, were wrong in", [min(wrong), max(wrong), own["races"]]


def printed(page: str, beginning: str) -> list[str]:
    """The numbers that follow the only place where a text begins so, in its table row or its next two lines."""
    text = (home() / "docs" / page).read_text()
    assert text.count(beginning) == 1, beginning
    rest = text.split(beginning)[1]
    rest = rest.split("\n")[0] if beginning.startswith("|") else " ".join(rest.split("\n")[:3])
    if beginning.startswith("|"):  # what a row is about may hold numbers, the command that it ends with may, too
        rest = rest.partition("|")[2].split("`")[0]
    return NUMBER.findall(rest)


@pytest.mark.parametrize(
    ("page", "claims"),
    [
        pytest.param("performance.md", decompositions, id="decompositions"),
        pytest.param("performance.md", adapter_steps, id="adapters"),
        pytest.param("performance.md", others, id="others"),
        pytest.param("performance.md", memory, id="memory"),
        pytest.param("sweeps.md", sweeps, id="sweeps"),
        pytest.param("sweeps.md", pauses, id="pauses"),
        pytest.param("sweeps.md", races, id="races"),
    ],
)
def test_figures_are_those_of_the_committed_measurements(page: str, claims: Any):
    for beginning, values in claims():
        found = printed(page, beginning)[: len(values)]
        assert len(found) == len(values), beginning
        for text, value in zip(found, values, strict=True):
            half = 0.5 * 10.0 ** -len(text.partition(".")[2])
            if float(text) >= 10 and value > 60 and "." not in text and text.endswith("0"):
                half = 5.0  # about
            assert abs(float(text) - value) <= 1.01 * half, f"{beginning}: {text}, measured {value}"
