"""Calibration, boundary IoU and what doubt finds, against other libraries and formulas written out."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from conftest import TINY
from installing import install
from scipy.ndimage import binary_erosion
from sklearn.metrics import roc_auc_score, roc_curve

from recyclelora.commands.evaluate import evaluate
from recyclelora.config.commands import EvaluateConfig
from recyclelora.config.run import OWN_METRICS
from recyclelora.evaluation.extra_metrics import ExtraMetrics
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.evaluation.pixel_metrics import PIXEL_METRICS, Boundary, Calibration, Pixels, Uncertainty
from recyclelora.system.plugins import installed
from recyclelora.training.run import Run

K = 4


def made(seed: int, size: tuple[int, int] = (40, 60)) -> Pixels:
    """Blobs of classes, a prediction that is often right and sure, and some pixels without a class."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, K, (5, 6)), np.ones((8, 10), int)).astype(np.uint8)[: size[0], : size[1]]
    scores = 3.0 * np.eye(K)[truth] + 1.5 * rng.normal(size=(*truth.shape, K))
    truth[:6, 20:40] = 255
    likely = torch.softmax(torch.from_numpy(scores), -1).permute(2, 0, 1).float()
    return Pixels(likely, likely.argmax(0).numpy().astype(np.uint8), truth, 255)


def test_the_names_are_those_that_a_configuration_may_have():
    assert sorted(PIXEL_METRICS) == list(OWN_METRICS)


def test_ece_is_the_published_sum_over_bins():
    images, metric = [made(0), made(1)], Calibration()
    found = metric(np.stack([metric.count(p) for p in images]), [])
    sure = np.concatenate([p.confidence[p.truth != 255] for p in images]).astype(float)
    right = np.concatenate([(p.prediction == p.truth)[p.truth != 255] for p in images])
    expected = 0.0
    for low in range(15):
        inside = (sure > low / 15) & (sure <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found["ece"] == pytest.approx(expected, abs=1e-9) and 0.01 < expected < 0.5


def test_boundary_iou_is_that_of_eroded_masks():
    images, metric = [made(2), made(3)], Boundary()
    radius = round(0.005 * np.hypot(40, 60)) or 1
    both, either = np.zeros(K), np.zeros(K)
    for p in images:
        prediction = np.where(p.truth == 255, 255, p.prediction)
        for k in range(K):
            near = []
            for mask in (p.truth == k, prediction == k):
                near.append(mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=radius, border_value=0))
            both[k] += (near[0] & near[1]).sum()
            either[k] += (near[0] | near[1]).sum()
    found = metric(np.stack([metric.count(p) for p in images]), [])
    assert found["boundary_iou"] == pytest.approx((both / either).mean(), abs=1e-12)


def test_a_perfect_mask_has_a_boundary_iou_of_one_and_an_absent_class_does_not_count():
    truth = np.zeros((30, 30), np.uint8)
    truth[10:20, 10:20] = 2
    likely = torch.from_numpy(np.eye(K, dtype=np.float32)[truth]).permute(2, 0, 1)
    metric = Boundary()
    assert metric(metric.count(Pixels(likely, truth, truth, 255))[None], []) == {"boundary_iou": 1.0}


def test_errors_and_unknown_pixels_are_ranked_as_scikit_learn_does():
    images, metric = [made(4), made(5)], Uncertainty()
    found = metric(np.stack([metric.count(p) for p in images]), [])
    doubt = -np.concatenate([p.confidence.ravel() for p in images])
    wrong = np.concatenate([(p.prediction != p.truth).ravel() for p in images])
    unknown = np.concatenate([(p.truth == 255).ravel() for p in images])
    cases = {"error": (wrong[~unknown], doubt[~unknown]), "unknown": (unknown, doubt)}
    for name, (positive, score) in cases.items():
        false, hits, _ = roc_curve(positive, score)
        assert found[f"{name}_auroc"] == pytest.approx(roc_auc_score(positive, score), abs=2e-3)
        assert found[f"{name}_fpr95"] == pytest.approx(np.interp(0.95, hits, false), abs=2e-2)


def test_confidences_beyond_the_bins_are_in_the_first_and_the_last():
    """Odds below e^-6, which no softmax of a few classes has, and of a certain answer; each wrong, each right."""
    likely = torch.tensor([[[1e-4, 1.0]], [[0.0, 0.0]]])
    found = Uncertainty().count(Pixels(likely, np.array([[0, 0]], np.uint8), np.array([[1, 0]], np.uint8), 255))
    right, wrong, unknown = found.reshape(3, 256)
    assert np.flatnonzero(wrong).tolist() == [0] and np.flatnonzero(right).tolist() == [255] and not unknown.any()


def test_sums_survive_files_and_a_stop(tmp_path):
    counts = ImageCounts(K)
    sums = {"calibration": np.arange(45.0) / 7}
    counts.add(np.eye(K, dtype=int), sums)
    counts.add(np.zeros((K, K), int), {"calibration": np.zeros(45)})
    counts.save(tmp_path / "a.safetensors")
    partial = PartialCounts(tmp_path / "p.json", "key")
    partial.update(1, counts, now=True)
    done, kept = partial.load(K, ["calibration"])
    assert done == 1 and partial.load(K)[0] == 0 and partial.load(K, ["calibration", "boundary"])[0] == 0
    for back in (ImageCounts.load(tmp_path / "a.safetensors"), kept):
        np.testing.assert_array_equal(back.sums["calibration"], counts.sums["calibration"])
        np.testing.assert_array_equal(back.dense(), counts.dense())


def test_a_run_and_its_evaluation_agree_and_an_older_run_says_how_to_get_them(
    make_config, gta2city, capsys, monkeypatch
):
    plain = Run.identify(make_config(*TINY, "trainer.max_steps=2"), None)
    with monkeypatch.context() as patch:
        patch.setattr("recyclelora.evaluation.evaluator.Pixels", None)  # nothing is looked at that nobody asked for
        plain.execute()
    asked = Run.identify(make_config(*TINY, "trainer.max_steps=2", "metrics=[calibration,boundary,uncertainty]"), None)
    assert asked.directory == plain.directory
    before = (asked.directory.path / "result.json").read_text()
    asked.execute()
    assert (asked.directory.path / "result.json").read_text() == before
    assert "metrics=[calibration] does it" in capsys.readouterr().out
    fresh = make_config(*TINY, "trainer.max_steps=2", "metrics=[calibration,boundary,uncertainty]", "fresh=true")
    Run.identify(fresh, None).execute()
    figures = json.loads((asked.directory.path / "result.json").read_text())["selection"]["last"]["metrics"]
    names = {"ece", "boundary_iou", "error_auroc", "error_fpr95", "unknown_auroc", "unknown_fpr95"}
    assert figures["cityscapes"].keys() == names
    assert all(0 <= value <= 1 for row in figures.values() for value in row.values())
    evaluate(EvaluateConfig(run=str(asked.directory.path), accelerator="cpu", num_workers=0))
    (answer,) = (asked.directory.path / "evaluations").glob("*.json")
    assert json.loads(answer.read_text())["metrics"] == figures


def test_a_pixel_metric_of_another_package_that_fails_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "mine_package").mkdir()
    (tmp_path / "mine_package/__init__.py").write_text(
        "class Mine:\n    def size(self, k): return 1\n    def count(self, pixels): return 1 / 0\n"
        "    def __call__(self, sums, classes): return {'a': 1.0}\nmine = Mine()\n"
    )
    install(tmp_path / "mine_package", "mine", {"recyclelora.metrics": {"mine": "mine_package:mine"}}, tmp_path / "s")
    monkeypatch.syspath_prepend(tmp_path / "s")
    installed.cache_clear()
    told: list[str] = []
    metrics, counts = ExtraMetrics(["mine"], ["road"] * K, told.append), ImageCounts(K)
    counts.add(np.eye(K, dtype=int), {name: metric.count(made(0)) for name, metric in metrics.of_pixels.items()})
    assert metrics.of(counts) == {} and "ZeroDivisionError" in told[0]
    installed.cache_clear()
    sys.modules.pop("mine_package", None)


def test_scores_over_the_severity_of_corruptions(make_config, gta2city, capsys):
    run = Run.identify(make_config(*TINY, "trainer.max_steps=1", "trainer.eval_every=1"), None)
    run.execute()
    path = run.directory.path
    evaluate(EvaluateConfig(
        run=str(path), accelerator="cpu", num_workers=0, corruptions=["contrast", "brightness"], severities=[5, 1]
    ))  # fmt: skip
    (answer,) = (path / "evaluations").glob("*.json")
    found = json.loads(answer.read_text())
    scores, severity = found["targets"], found["severity"]
    assert severity["clean"] == scores["cityscapes"] == json.loads((path / "result.json").read_text())["miou"]["mean"]
    assert {k: list(v) for k, v in severity["curves"].items()} == {"contrast": ["1", "5"], "brightness": ["1", "5"]}
    assert severity["curves"]["contrast"]["5"] == scores["cityscapes_contrast_5"]
    values = [value for name, value in scores.items() if name != "cityscapes"]
    assert severity["mpc"] == pytest.approx(np.mean(values)) and len(values) == 4
    assert severity["rpc"] == pytest.approx(severity["mpc"] / severity["clean"])
    assert answer.with_name(f"{answer.stem}-severity.png").stat().st_size > 5000
    assert "contrast" in capsys.readouterr().out
