"""What TensorBoard and W&B read back is what ``metrics.jsonl`` holds, each point once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, stop_after
from PIL import Image
from waiting import wait_for

from recyclelora.config.compose import to_yaml
from recyclelora.runs.metrics_log import MetricsLog, read_points
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.tracking.feed import Feed
from recyclelora.tracking.follow import sync
from recyclelora.tracking.process import asked_for
from recyclelora.training.run import Run

Curves = dict[str, list[tuple[int, float]]]


def expected(run_dir: Path) -> Curves:
    """The curves of ``metrics.jsonl``."""
    curves: Curves = defaultdict(list)
    for point in read_points(run_dir / "metrics.jsonl"):
        for name, value in point.items():
            if name not in ("step", "time"):
                curves[name].append((point["step"], pytest.approx(value, rel=1e-6)))
    return dict(curves)


def in_tensorboard(run_dir: Path) -> tuple[Curves, dict[str, list[int]]]:
    """Curves and steps of pictures, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_dir / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    curves = {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    pictures = {}
    for tag in reader.Tags()["images"]:
        events = reader.Images(tag)
        assert all(event.encoded_image_string.startswith(b"\x89PNG") for event in events)
        pictures[tag] = [event.step for event in events]
    return curves, pictures


def in_wandb(run_dir: Path) -> tuple[Curves, dict[str, list[int]]]:
    """Curves and steps of pictures in all offline files of a run, as ``wandb sync`` would send them."""
    from wandb.proto.wandb_internal_pb2 import Record
    from wandb.sdk.internal.datastore import DataStore

    curves: Curves = defaultdict(list)
    pictures: dict[str, list[int]] = defaultdict(list)
    rows: list[int] = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record.FromString(data)
            row = {tuple(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows += [row[("_step",)]] if row else []
            for (name, *part), value in row.items():
                if part == ["path"]:
                    assert (path.parent / "files" / value).is_file()
                    pictures[name].append(row[("step",)])
                elif not part and name != "step" and not name.startswith("_"):
                    curves[name].append((row[("step",)], value))
    assert rows == sorted(set(rows))  # W&B drops rows that go back
    return dict(curves), dict(pictures)


READERS = {"tensorboard": in_tensorboard, "wandb": in_wandb}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def run_dir(make_config) -> Path:
    """The files that training leaves, without training."""
    config = make_config(*TINY)
    path = Path(config.output_dir) / "runs" / "run"
    (path / "figures").mkdir(parents=True)
    (path / "config.yaml").write_text(to_yaml(config))
    (path / "run.json").write_text(json.dumps({"signature": "0" * 16, "command": "train.py"}))
    log = MetricsLog(path / "metrics.jsonl")
    for step in (1, 2):
        log.append(step, {"loss_ce": 1 / step, "lr": 1e-4})
    log.append(2, {"miou/day": 0.25})
    for name in ("predictions_step_000000", "predictions_step_000002", "curves"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path / f"figures/{name}.png")
    return path


@pytest.mark.parametrize("kind", READERS)
def test_every_point_and_picture_arrives_once_however_often_it_is_sent(kind, run_dir):
    sync(run_dir, kind)
    MetricsLog(run_dir / "metrics.jsonl").append(3, {"loss_ce": 0.125})
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ti')  # a line that is being written
    for _ in range(2):
        sync(run_dir, kind)
    curves, pictures = READERS[kind](run_dir)
    assert curves == expected(run_dir)
    assert curves["loss_ce"] == [(1, 1.0), (2, 0.5), (3, 0.125)]
    assert pictures["figures/predictions"] == [0, 2]
    assert len(pictures["figures/curves"]) == 1 and set(pictures) == {"figures/predictions", "figures/curves"}


@pytest.mark.parametrize("kind", READERS)
def test_parameters_are_there_to_compare_by(kind, run_dir):
    sync(run_dir, kind)

    def known() -> bool:  # W&B's own process writes a moment later
        files = [path for path in run_dir.rglob("*") if "events" in path.name or path.suffix == ".wandb"]
        content = b"".join(path.read_bytes() for path in files)
        return b"adapter.main.rank" in content and b"trainer.max_steps" in content

    wait_for(known)


class Deaf:
    """A tracker that fails at some calls."""

    def __init__(self, feed: Feed, failures: int) -> None:
        self.feed, self.failures, self.heard = feed, failures, []

    def point(self, step, time, values):
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        self.heard.append((step, values))

    def picture(self, name, step, path):
        self.heard.append((step, name))

    def flush(self):
        pass


def test_nothing_is_lost_or_told_twice_when_a_tracker_fails(run_dir):
    tracker = Deaf(Feed(run_dir), failures=2)
    for _ in range(4):
        try:
            tracker.feed.forward(tracker)
        except ConnectionError:
            continue
    assert tracker.heard == [
        (1, {"loss_ce": 1.0, "lr": 1e-4}), (2, {"loss_ce": 0.5, "lr": 1e-4}), (2, {"miou/day": 0.25}),
        (2, "figures/curves"), (0, "figures/predictions"), (2, "figures/predictions"),
    ]  # fmt: skip


def test_a_run_that_is_set_back_repeats_nothing(run_dir):
    tracker = Deaf(Feed(run_dir), failures=0)
    tracker.feed.forward(tracker)
    known = len(tracker.heard)
    log = MetricsLog(run_dir / "metrics.jsonl")
    log.rewind(1)
    tracker.feed.forward(tracker)
    assert len(tracker.heard) == known
    log.append(2, {"loss_ce": 0.5, "lr": 1e-4})
    log.append(3, {"loss_ce": 0.25, "lr": 1e-4})
    tracker.feed.forward(tracker)
    assert tracker.heard[known:] == [(3, {"loss_ce": 0.25, "lr": 1e-4})]


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_a_run_that_is_stopped_and_resumed_is_one_run_with_single_points(kind, make_config, gta2city, monkeypatch):
    options = [o for o in TINY if "num_figures" not in o]
    config = make_config(*options, "trainer.num_figures=1", "trainer.eval_every=2", f"tracking={kind}")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            Run.identify(config, None).execute()
    Run.identify(config, None).execute()
    (path,) = (Path(config.output_dir) / "runs").iterdir()
    curves, pictures = READERS[kind](path)
    assert {name: sorted(points) for name, points in curves.items()} == expected(path), (
        path / f"{kind}.log"
    ).read_text()
    assert pictures["figures/predictions"] == [0, 2, 4]
    assert {"figures/confusion", "figures/overview", "figures/augmented_crops"} <= set(pictures)
    assert "does not have everything" not in (path / "train.log").read_text()


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_package_is_one_clear_line_before_anything_is_written(kind, make_config, gta2city, monkeypatch):
    config = make_config(*TINY, f"tracking={kind}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    with pytest.raises(UserError, match=rf"tracking\.{kind}=true needs .* pip install 'recyclelora\[{kind}\]'"):
        asked_for(config.tracking)
    with pytest.raises(UserError, match="needs the package"):
        Run.identify(config, None).execute()
    assert not Path(config.output_dir).exists()


def test_the_sync_command_names_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "recyclelora.trackers", "sync", "tensorboard", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr
