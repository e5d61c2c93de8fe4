"""What is claimed of runs whose scores are known."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.reports import charts, numbers, tables
from recyclelora.reports.comparison import Comparison, compare
from recyclelora.reports.groups import MEAN, SOURCE
from recyclelora.reports.records import read_runs, read_sweep
from recyclelora.reports.statistics import t_interval
from recyclelora.sweep.ledger import Ledger
from recyclelora.system.errors import UserError

from .sweeps import run_name, write_run, write_study, write_trial

LORA, FROZEN = {"adapter.name": "lora"}, {"adapter.name": "frozen", "adapter.kind": "frozen"}


def with_means(path: Path, seed: int, mean: float, changes: dict, **options) -> Path:
    """A run whose last checkpoint has this mean of targets, and no other scores."""
    chosen = {"targets": {"day": mean, "night": mean}, "mean": mean, "source_val": 0.5, "step": 10}
    return write_run(path, seed, 0.7, changes, selection={"last": chosen}, **options)


def means(folder: Path, **by_group: dict[int, float]) -> Comparison:
    """``lora={seed: mean, ...}`` and so on; no bootstrap."""
    kinds = {"lora": LORA, "frozen": FROZEN}
    paths = [
        with_means(folder / f"{name}{seed}", seed, mean, kinds.get(name, {"adapter.name": name}))
        for name, runs in by_group.items() for seed, mean in runs.items()
    ]  # fmt: skip
    return compare(read_runs(paths), "last", None, 0)


def test_a_group_that_breaks_a_constraint_is_last_and_says_so(tmp_path):
    sweep = write_study(tmp_path / "s")
    for number, (quality, changes) in enumerate(((0.9, LORA), (0.5, FROZEN))):
        write_run(sweep / run_name(number), 0, quality, changes)
        write_trial(sweep, number, {}, values=[quality], run_dirs=(run_name(number),))
    lora, _ = Ledger(sweep).trials()
    lora.constraints = [1.0]
    lora.save_state()
    c = compare(read_sweep(sweep), "last", None, 0)
    assert [g.name for g in c.groups] == ["adapter=frozen", "adapter=lora (breaks a constraint)"]


def test_figures_leave_the_pictures_of_others_alone(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/mine.png").write_bytes(b"png")
    (tmp_path / "figures/history.png").write_bytes(b"of an earlier report")
    drawn = charts.draw(means(tmp_path / "runs", frozen={0: 0.5}, lora={0: 0.6}), tmp_path / "figures")
    found = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert found == {"mine"} | {chart.name for chart in drawn} and "history" not in found


def test_paired_differences_by_hand(tmp_path):
    c = means(tmp_path, frozen={0: 0.50, 1: 0.60, 2: 0.70, 9: 0.1}, lora={0: 0.51, 1: 0.62, 2: 0.73, 7: 0.9})
    assert c.reference and (c.reference.name, c.reference_reason) == ("adapter=frozen", "the frozen backbone")
    (difference,) = c.differences
    assert difference.seeds == [0, 1, 2]
    found = difference.scores[MEAN]
    half = 4.302652729911275 * 0.01 / np.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.02, 0.02 - half, 0.02 + half))
    assert found.p == difference.p_holm == pytest.approx(0.07418, abs=1e-5)
    assert difference.verdict == "undecided"


def test_better_and_worse_only_without_zero(tmp_path):
    c = means(
        tmp_path, frozen={0: 0.5, 1: 0.6}, good={0: 0.6, 1: 0.7001}, bad={0: 0.4, 1: 0.4999}, same={0: 0.5, 1: 0.61}
    )
    assert {d.group.name: d.verdict for d in c.differences} == {
        "adapter=good": "better", "adapter=bad": "worse", "adapter=same": "undecided",
    }  # fmt: skip


def test_many_comparisons_need_a_smaller_p(tmp_path):
    """With t = 5.196 each p is 0.035 and each interval leaves zero out; for three groups Holm asks for 0.0167."""
    values = {0: 0.51, 1: 0.53, 2: 0.55}  # minus 0.5, mean 0.03, sd 0.02: t = 0.03 * sqrt(3) / 0.02 = 2.598
    strong = {seed: 0.5 + (value - 0.5) * 0.5 + 0.015 for seed, value in values.items()}  # mean 0.03, sd 0.01
    frozen = dict.fromkeys(values, 0.5)
    alone = means(tmp_path / "one", frozen=frozen, a=strong)
    assert alone.differences[0].p_holm == pytest.approx(0.0351, abs=1e-3) and alone.differences[0].verdict == "better"
    many = means(tmp_path / "three", frozen=frozen, a=strong, b=strong, c=strong)
    assert all(d.scores[MEAN].sign == 1 and d.verdict == "undecided" for d in many.differences)


def test_differences_that_agree_by_chance_decide_nothing_where_others_do_not(tmp_path):
    """Three equal differences of 0.01 between two groups, while seeds move the other groups by ten times that."""
    frozen, lora = {0: 0.50, 1: 0.60, 2: 0.70}, {0: 0.5101, 1: 0.6099, 2: 0.7100}
    alone = means(tmp_path / "two", frozen=frozen, lora=lora).differences[0]
    assert alone.verdict == "better" and alone.pooled_p_holm == pytest.approx(alone.p_holm)
    c = means(tmp_path / "four", frozen=frozen, lora=lora, a={0: 0.6, 1: 0.5, 2: 0.8}, b={0: 0.4, 1: 0.7, 2: 0.6})
    (found,) = [d for d in c.differences if d.group.name == "adapter=lora"]
    assert found.p_holm < 0.05 < found.pooled_p_holm and found.verdict == "undecided"


def test_more_seeds_of_some_groups_do_not_switch_the_pooled_p_off(tmp_path):
    frozen, lora = {0: 0.50, 1: 0.60, 2: 0.70, 3: 0.5}, {0: 0.5101, 1: 0.6099, 2: 0.7100, 4: 0.9}
    c = means(tmp_path, frozen=frozen, lora=lora, a={0: 0.6, 1: 0.5, 2: 0.8, 5: 0.1}, b={0: 0.4, 1: 0.7, 2: 0.6})
    (found,) = [d for d in c.differences if d.group.name == "adapter=lora"]
    assert found.seeds == [0, 1, 2] and found.p_holm < 0.05 < found.pooled_p_holm and found.verdict == "undecided"


def test_a_collapsed_run_of_one_group_decides_nothing_about_the_others(tmp_path):
    c = means(
        tmp_path, frozen={0: 0.500, 1: 0.502, 2: 0.499}, lora={0: 0.550, 1: 0.5525, 2: 0.5495},
        other={0: 0.55, 1: 0.02, 2: 0.55},
    )  # fmt: skip
    assert {d.group.name: d.verdict for d in c.differences} == {
        "adapter=lora": "better", "adapter=other": "undecided",
    }  # fmt: skip


def test_a_group_with_an_outlying_spread_has_to_pass_the_second_criterion_too(tmp_path):
    """It agrees with a reference that is as far off, by chance; what the others spread is not all that counts."""
    calm = {
        "a": {0: 0.60, 1: 0.601, 2: 0.602},
        "b": {0: 0.61, 1: 0.6105, 2: 0.612},
        "d": {0: 0.62, 1: 0.6215, 2: 0.622},
    }
    c = means(tmp_path, frozen={0: 0.50, 1: 0.501, 2: 0.5015}, wild={0: 0.70, 1: 0.30, 2: 0.69}, **calm)
    (wild,) = [d for d in c.differences if d.group.name == "adapter=wild"]
    assert wild.pooled_p_holm is not None and wild.pooled_p_holm > 0.05
    escaped = dataclasses.replace(wild, scores={MEAN: t_interval([0.2, 0.201, 0.199])}, p_holm=0.001, bootstrap=None)
    assert escaped.verdict == "undecided"
    assert dataclasses.replace(escaped, pooled_p_holm=None).verdict == "undecided"


def test_differences_that_are_all_the_same_decide_nothing(tmp_path):
    c = means(tmp_path, frozen={0: 0.25, 1: 0.5}, lora={0: 0.5, 1: 0.75})
    assert (c.differences[0].verdict, c.differences[0].p_holm) == ("undecided", None)


def test_one_seed_decides_nothing(tmp_path):
    c = means(tmp_path, frozen={0: 0.1}, lora={0: 0.9})
    assert c.differences[0].verdict == "one seed" and c.differences[0].scores[MEAN].low is None
    assert c.winner.startswith("No winner:") and "decide nothing" in c.winner


def test_no_common_seed_is_nothing_in_common(tmp_path):
    c = means(tmp_path, frozen={0: 0.1}, lora={1: 0.9})
    assert c.differences[0].verdict == "nothing in common" and c.differences[0].scores == {}


def test_the_winner_is_named_only_when_it_beats_every_other(tmp_path):
    clear = [write_run(tmp_path / f"{n}{s}", s, q + s / 1e4, {"adapter.name": n}) for n, q in (("a", 0.6), ("b", 0.7))
             for s in (0, 1, 2)]  # fmt: skip
    assert compare(read_runs(clear), "last", None, 0).winner == (
        "adapter=b has the best objective and is better on the targets than adapter=a."
    )
    close = [write_run(tmp_path / f"c{s}", s, 0.7 + d, {"adapter.name": "c"}) for s, d in enumerate((0.01, -0.01, 0.0))]
    found = compare(read_runs(clear + close), "last", None, 0).winner
    assert (
        found
        == "No winner: adapter=b has the best objective, but is not shown to be better on the targets than adapter=c."
    )


def test_reference_as_asked_or_the_best(tmp_path):
    paths = [write_run(tmp_path / n, 0, q, {"adapter.name": n}) for n, q in (("lora", 0.6), ("soma", 0.7))]
    study = read_runs(paths)
    best = compare(study, "last", None, 0)
    assert best.reference and (best.reference.name, best.reference_reason) == ("adapter=soma", "the best by objective")
    asked = compare(study, "last", "lora", 0)
    assert asked.reference and asked.reference.name == "adapter=lora"
    with pytest.raises(
        UserError, match=r"reference=adapter=lroa: no group \(did you mean adapter=lora\?\); there are:"
    ):
        compare(study, "last", "adapter=lroa", 0)
    with pytest.raises(UserError, match="several groups"):
        compare(study, "last", "adapter", 0)


def test_points_of_a_sweep_name_its_groups(tmp_path):
    sweep = write_study(tmp_path / "named")
    lr = "optimizer.lr"
    rows = [
        ("still", 0, FROZEN),
        ("still", 1, FROZEN),
        ("moved", 0, LORA | {lr: 1e-3}),
        ("moved", 0, LORA | {lr: 1e-2}),
    ]
    for number, (point, seed, changes) in enumerate(rows):
        path = write_run(sweep / run_name(number), seed, 0.6 + 0.05 * number, changes)
        write_trial(sweep, number, {"point": point, "seed": seed}, values=[0.5], run_dirs=(path.name,))
    found = compare(read_sweep(sweep), "last", None, 0)
    assert [g.name for g in found.groups] == ["moved, lr=0.01", "moved, lr=0.001", "still"]
    assert found.points is not None
    assert (
        found.points.startswith("moved, lr=0.01 is adapter=lora, lr=0.01; ") and "; still is adapter=" in found.points
    )
    for wanted in ("still", "adapter=frozen"):
        assert (asked := compare(read_sweep(sweep), "last", wanted, 0).reference) and asked.name == "still"


# --- bootstrap --------------------------------------------------------------------------------------------------------


def write_counts(path: Path, matrices: list[list[list[int]]]) -> None:
    counts = ImageCounts(2)
    for matrix in matrices:
        counts.add(np.array(matrix))
    counts.save(path / "evaluations/images/10/day.safetensors")


def two_image_runs(tmp_path: Path, other_truth: bool = False) -> list[Path]:
    """On the two images lora has all right; frozen has half of image 0 and a quarter of image 1 right."""
    paths = []
    for name, right in (("frozen", (2, 1)), ("lora", (4, 4))):
        chosen = {"targets": {"day": 0.5}, "mean": 0.5, "source_val": 0.5, "step": 10}
        path = write_run(tmp_path / name, 0, 0.7, FROZEN if name == "frozen" else LORA, selection={"last": chosen},
                         iou_per_class={"day": [0.5, 0.5]}, classes=["road", "sky"])  # fmt: skip
        size = 5 if other_truth and name == "lora" else 4
        write_counts(path, [[[n, size - n], [size - n, n]] for n in right])
        paths.append(path)
    return paths


def test_bootstrap_over_images_by_hand(tmp_path):
    c = compare(read_runs(two_image_runs(tmp_path)), "last", None, 4000)
    # draws are (0, 0), (0, 1) or (1, 1), with chances 1/4, 1/2, 1/4: the middle 95 % reach from the first to the last
    frozen = {"00": 2 / (4 + 2), "11": 1 / (4 + 3)}  # IoU = right / (truth + wrong), equal for both classes
    (difference,) = c.differences
    assert difference.bootstrap_over == "images"
    assert difference.bootstrap == pytest.approx((1 - frozen["00"], 1 - frozen["11"]))
    again = compare(read_runs([tmp_path / "frozen", tmp_path / "lora"]), "last", None, 4000)
    assert again.differences[0].bootstrap == difference.bootstrap


def test_frames_of_one_drive_are_drawn_together(tmp_path):
    """Four images of two drives: as two images counted twice; a run that does not know the drives is joined."""
    paths = two_image_runs(tmp_path)
    for path, drives in zip(paths, (None, ["x_1", "x_1", "y_2", "y_2"]), strict=True):
        file = path / "evaluations/images/10/day.safetensors"
        two, four = ImageCounts.load(file).dense(), ImageCounts(2, drives)
        for matrix in two.repeat(2, 0):
            four.add(matrix)
        four.save(file)
    (difference,) = compare(read_runs(paths), "last", None, 4000).differences
    assert difference.bootstrap_over == "drives"
    assert difference.bootstrap == pytest.approx((1 - 2 / 6, 1 - 1 / 7))  # as over two images; four are surer


def test_one_drive_says_nothing_of_others(tmp_path):
    paths = two_image_runs(tmp_path)
    for path in paths:
        file = path / "evaluations/images/10/day.safetensors"
        found = ImageCounts.load(file)
        found.drives = np.zeros(2, np.int32)
        found.save(file)
    assert compare(read_runs(paths), "last", None, 100).differences[0].bootstrap_over == "images"


def test_other_images_are_not_paired(tmp_path):
    c = compare(read_runs(two_image_runs(tmp_path, other_truth=True)), "last", None, 100)
    assert c.differences[0].bootstrap_over == "classes"


def test_without_counts_of_images_the_classes_are_drawn(tmp_path):
    rows = {"frozen": [0.5, 0.5, 0.5], "lora": [0.6, 0.7, None]}
    paths = []
    for name, row in rows.items():
        paths.append(write_run(tmp_path / name, 0, 0.7, FROZEN if name == "frozen" else LORA,
                               iou_per_class={"day": row, "night": row, "source_val": row}))  # fmt: skip
    (difference,) = compare(read_runs(paths), "last", None, 2000).differences
    assert difference.bootstrap_over == "classes"
    assert difference.bootstrap == pytest.approx((0.1, 0.2))  # of two classes, drawn with chances 1/4, 1/2, 1/4


def test_a_bootstrap_that_holds_zero_forbids_a_claim(tmp_path):
    c = means(tmp_path, frozen={0: 0.5, 1: 0.6}, good={0: 0.6, 1: 0.7001})
    (difference,) = c.differences
    for interval, verdict in (((0.05, 0.2), "better"), ((-0.01, 0.2), "undecided"), ((-0.2, -0.1), "undecided")):
        assert dataclasses.replace(difference, bootstrap=interval).verdict == verdict


def test_scores_of_classes_under_a_selection_without_them(tmp_path):
    """best_target is another step: its classes are known only from the counts of its images."""
    paths = [write_run(tmp_path / "a", 0, 0.6, LORA), write_run(tmp_path / "b", 0, 0.7, FROZEN)]
    c = compare(read_runs(paths), "best_target", None, 10)
    assert c.groups[0].per_class is None and c.basis == "protocol whole, checkpoint best_target (chosen on the targets)"
    assert c.differences[0].bootstrap is None


def test_targets_without_labels_leave_source_validation(tmp_path):
    nothing = {"targets": {"day": None}, "mean": None, "source_val": 0.5, "step": 10}
    for name in ("a", "b"):
        write_run(tmp_path / name, 0, 0.6, {"adapter.name": name}, selection={"last": nothing})
    c = compare(read_runs([tmp_path / "a", tmp_path / "b"]), "last", None, 50)
    assert [g.score(MEAN) for g in c.groups] == [(None, None)] * 2 and c.groups[0].per_class is None
    assert c.differences[0].verdict == "nothing in common" and c.differences[0].scores[SOURCE].mean == 0
    assert charts.per_class(c) is None and charts.differences(c) is None and charts.cost(c) is None
    assert c.winner.startswith("No winner")


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_only_confirmed_runs_are_ranked(tmp_path):
    sweep = write_study(tmp_path / "s")
    for number, rate in enumerate((0.1, 0.2, 0.3)):
        name = run_name(number)
        write_run(sweep / name, 0, 0.6 + rate / 10, {"optimizer.lr": rate})
        write_trial(sweep, number, {"optimizer.lr": rate}, values=[0.5], run_dirs=(name,))
        if number:
            dirs = tuple(f"{run_name(number, 'confirm')}/seed_{seed}" for seed in (100, 101))
            for place, run_dir in enumerate(dirs):
                write_run(sweep / run_dir, 100 + place, 0.6, {"optimizer.lr": rate})
            write_trial(sweep, number, {"optimizer.lr": rate}, values=[0.5], run_dirs=dirs, kind="confirm")
    c = compare(read_sweep(sweep), "last", None, 0)
    assert c.confirmed
    assert {g.name: g.seeds for g in c.groups} == {"lr=0.2": [100, 101], "lr=0.3": [100, 101]}
    assert {g.name: g.seeds for g in c.search} == {"lr=0.1": [0], "lr=0.2": [0], "lr=0.3": [0]}


@pytest.mark.parametrize("where", ["run", "study"])
def test_tuning_on_targets_is_in_every_heading(tmp_path, where):
    sweep = write_study(tmp_path / "s", **({"tuned_on_targets": True} if where == "study" else {}))
    write_run(sweep / run_name(0), objective="target_mean" if where == "run" else "source_val")
    c = compare(read_sweep(sweep), "last", None, 0)
    assert c.tuned_on_targets and c.basis == "protocol whole, checkpoint last, tuned on targets"


def test_what_does_not_compare_is_said(tmp_path):
    paths = [write_run(tmp_path / "a"), write_run(tmp_path / "b", protocol="rein", steps=20, dataset_digest="e" * 64)]
    remarks = " ".join(compare(read_runs(paths), "last", None, 0).remarks)
    for words in ("different protocols (whole, rein)", "10 to 20", "different data"):
        assert words in remarks


def test_protocols_are_told_apart_by_their_values(tmp_path):
    def settings(name, stride=341, **more):
        return {"protocol": name, "protocol_settings": {"name": name, "mode": "slide", "stride": stride, **more}}

    def compared(*asked):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        paths = [write_run(folder / f"{i}", i, **about) for i, about in enumerate(asked)]
        c = compare(read_runs(paths), "last", None, 0)
        return c.protocols, [remark for remark in c.remarks if "protocols" in remark]

    assert compared(settings("rein"), settings("rein")) == (["rein"], [])
    assert compared(settings("rein"), settings("mine")) == (["rein"], [])  # the same by another name
    names, (remark,) = compared(settings("rein"), settings("rein", 256))
    assert names == ["rein with stride 341", "rein with stride 256"]
    assert "(rein with stride 341, rein with stride 256): their scores do not compare" in remark
    names, (remark,) = compared(settings("rein", half=["mapillary"]), settings("rein", half=[]), settings("soma", 3))
    assert names == ['rein with half ["mapillary"], stride 341', "rein with half [], stride 341", "soma"]


def test_groups_have_means_of_scores_and_cost(tmp_path):
    values = ((0, 0.6, 10.0, 0.02), (1, 0.8, 30.0, 0.04))
    paths = [write_run(tmp_path / f"{s}", s, q, LORA, seconds=t, movement=m) for s, q, t, m in values]
    compared = compare(read_runs(paths), "last", None, 0)
    (group,) = compared.groups
    scores = [r.scores[SOURCE] for r in group.runs]
    mean, sd = group.score(SOURCE)
    assert mean == pytest.approx(sum(scores) / 2) and sd == pytest.approx(abs(scores[0] - scores[1]) / np.sqrt(2))
    assert group.about("seconds") == 20.0 and group.about("params", "total") == 22000
    assert group.movement == pytest.approx((0.03, 0.02 / np.sqrt(2)))
    shown = tables.scores(compared, [group])
    assert shown.columns[-1] == "movement" and shown.rows[0][-1].text == "3 % ± 1.4"
    (row,) = csv.DictReader(io.StringIO(numbers.groups_csv(compared)))
    assert float(row["movement_mean"]) == pytest.approx(0.03)
    assert [row["movement"] for row in csv.DictReader(io.StringIO(numbers.runs_csv(compared)))] == ["0.02", "0.04"]
