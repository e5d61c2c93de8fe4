from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from conftest import TINY, save_rgb, stop_after
from safetensors.torch import load_file

import recyclelora
from recyclelora.config.build import build_model, locate_weights
from recyclelora.config.compose import to_yaml
from recyclelora.data.build import build_datasets
from recyclelora.data.open import mask_kinds
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.metrics import iou, mean_iou
from recyclelora.runs.directory import METRICS
from recyclelora.runs.identity import place_of
from recyclelora.runs.unit import VARIABLE
from recyclelora.sweep.ledger import Ledger
from recyclelora.system.errors import Interrupted, UserError
from recyclelora.training.run import Run

SCHEMA = json.loads((Path(recyclelora.__file__).parent / "runs/result.schema.json").read_text())


def run_dir(config) -> Path:
    (found,) = (Path(config.output_dir) / "runs").glob(f"{config.adapter.name}-*")
    return found


def execute(config) -> Path:
    Run.identify(config, None).execute()
    return run_dir(config)


def check_image_counts(path: Path) -> None:
    """The counts of single images of every selected checkpoint, and no other, add up to its scores."""
    selection = json.loads((path / "result.json").read_text())["selection"]
    kept = {folder.name for folder in (path / "evaluations/images").iterdir()}
    assert kept == {str(selected["step"]) for selected in selection.values()}
    for selected in selection.values():
        for name, value in {**selected["targets"], "source_val": selected["source_val"]}.items():
            counts = ImageCounts.load(path / f"evaluations/images/{selected['step']}/{name}.safetensors")
            assert len(counts) and mean_iou(iou(counts.total())) == value


def without_time(path: Path) -> dict:
    result = json.loads((path / "result.json").read_text())
    return {k: v for k, v in result.items() if k not in ("seconds", "peak_memory_mb")}


@pytest.fixture
def config(make_config, gta2city):
    return make_config(*TINY)


def test_a_run_leaves_the_promised_directory(config):
    path = execute(config)
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert files == {
        ".lock", "config.yaml", "run.json", "metrics.jsonl", "train.log", "result.json",
        "adapter.safetensors", "adapter_config.json",
        "checkpoints/last", "checkpoints/best_source", "checkpoints/best_target", "checkpoints/scores.json",
        *(f"checkpoints/step_000004/{name}" for name in (
            "trained.safetensors", "optimizer.safetensors", "initial.safetensors", "state.json", "manifest.json")),
        *(f"evaluations/images/4/{name}.safetensors" for name in ("source_val", "cityscapes")),
    }  # fmt: skip
    result = json.loads((path / "result.json").read_text())
    jsonschema.validate(result, SCHEMA)
    assert result["steps"] == 4 and result["selection"]["last"]["step"] == 4
    assert result["params"]["backbone_trainable"] == 4 * 6 * (128 + 64 + 160 + 160)
    assert result["objective"] == result["miou"]["source_val"] and result["movement"] > 0
    about = json.loads((path / "run.json").read_text())
    assert about["weights_sha256"] is None and about["precision"] == "32-true" and about["protocol"] == "recyclelora"
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [p["step"] for p in points if "loss_ce" in p] == [1, 2, 3, 4]


def test_stored_adapter_has_trainables_and_initial_factors(config):
    tensors = load_file(execute(config) / "adapter.safetensors")
    layer = "backbone.model.blocks.0.attn.qkv"
    assert tensors[f"trained/{layer}.main.lora_a"].shape == (4, 32)
    assert tensors["initial/blocks.0.attn.qkv.main.lora_a"].dtype == torch.int64  # positions of the ones
    assert tensors["initial/blocks.0.attn.qkv.main.lora_b"].shape == (96, 4)
    assert not [name for name in tensors if name.endswith("qkv.weight")]


def test_the_adapter_file_is_no_larger_than_trainables_and_initial_b(config):
    path = execute(config)
    params = json.loads((path / "result.json").read_text())["params"]
    tensors = load_file(path / "adapter.safetensors")
    indices = {name for name, value in tensors.items() if name.startswith("initial/") and name.endswith("lora_a")}
    assert {tensors[name].numel() for name in indices} == {4, 2} and len(indices) == 32
    initial_b = sum(t.numel() for name, t in tensors.items() if name.startswith("initial/") and name not in indices)
    assert initial_b == 4 * 6 * (96 + 32 + 128 + 32)
    floats = params["backbone_trainable"] + params["decoder"] + initial_b
    names = sum(len(name) + 80 for name in tensors)  # the header: name, type, shape and offsets of every tensor
    assert (path / "adapter.safetensors").stat().st_size <= 4 * floats + 8 * 16 * 6 + names


def test_the_same_command_reports_the_finished_run(config, capsys):
    path = execute(config)
    before = (path / "result.json").stat().st_mtime_ns
    objective = Run.identify(config, None).execute()
    assert "already finished" in capsys.readouterr().out
    assert (path / "result.json").stat().st_mtime_ns == before
    assert objective == json.loads((path / "result.json").read_text())["objective"]


def test_fresh_keeps_the_old_folder_and_starts_over(config, make_config):
    execute(config)
    Run.identify(make_config(*TINY, "fresh=true"), None).execute()
    folders = sorted(p.name for p in (Path(config.output_dir) / "runs").iterdir())
    assert len(folders) == 2 and folders[1].startswith(folders[0] + ".old-")


def test_a_trial_that_comes_back_goes_on_although_its_sweep_began_afresh(make_config, gta2city, tmp_path, monkeypatch):
    trial = Ledger(tmp_path / "sweep").add(3, {}, [], [["seed=0"], ["seed=1"]], {})
    for unit in (0, 1):
        monkeypatch.setenv(VARIABLE, str(trial.unit_folder(unit)))
        config = make_config(*TINY, "fresh=true", f"seed={unit}")
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            with pytest.raises(Interrupted, match="the same command goes on from there"):
                Run.identify(config, None).execute()
        Run.identify(config, None).execute()
    (shared,) = (tmp_path / "sweep").glob("trial_0003-*")
    assert sorted(path.name for path in shared.iterdir()) == ["seed_0", "seed_1"]  # nothing was set aside
    found = [json.loads((shared / f"seed_{seed}/result.json").read_text()) for seed in (0, 1)]
    for result in found:
        jsonschema.validate(result, SCHEMA)
    assert found[0]["signature"] != found[1]["signature"]
    resumed = json.loads((shared / "seed_1/run.json").read_text())["resumed"]
    assert len(resumed) == 1


@pytest.mark.parametrize(
    ("adapter", "extra"),
    [
        ("recyclelora", ["trainer.num_workers=2"]),
        ("recyclelora", ["trainer.ema=0.1", "trainer.accumulate=2", "trainer.checkpointing=true"]),
        ("lora", ["trainer.precision=16-mixed"]),
    ],
)
def test_stop_and_resume_ends_bit_identical(make_config, gta2city, tmp_path, monkeypatch, adapter, extra):
    options = [o for o in TINY if adapter == "recyclelora" or "sub.rank" not in o]
    options += [f"adapter={adapter}", "trainer.eval_every=2", "decoder.dropout=0.1", *extra]
    whole = execute(make_config(*options, f"output_dir={tmp_path / 'whole'}"))
    for step in (1, 3):
        parted = make_config(*options, f"output_dir={tmp_path / f'parted{step}'}")
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            with pytest.raises(Interrupted, match=f"after step {step}; the same command goes on"):
                Run.identify(parted, None).execute()
        assert not (run_dir(parted) / "result.json").exists()
        path = execute(parted)
        assert without_time(path) == without_time(whole)
        for name in ("adapter.safetensors", "checkpoints/step_000004/optimizer.safetensors"):
            assert (path / name).read_bytes() == (whole / name).read_bytes()
        steps = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 2, 3, 4, 4, 4]


def test_resuming_never_decomposes_again(make_config, gta2city, monkeypatch):
    config = make_config(*TINY)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Interrupted):
            Run.identify(config, None).execute()
    monkeypatch.setattr(
        "recyclelora.adapters.low_rank.inject.factorize", lambda *a, **k: pytest.fail("decomposed again")
    )
    execute(config)


def test_identity_follows_content_not_paths_or_workers(make_config, gta2city, tmp_path):
    def sign(*overrides):
        return Run.identify(make_config(*TINY, *overrides), None).signature

    first = sign()
    same = ("trainer.num_workers=3", "trainer.log_every=7", f"output_dir={tmp_path / 'x'}", "tracking=mlflow")
    assert {sign(o) for o in same} == {first}
    moved = tmp_path / "moved"
    (tmp_path / "data").rename(moved)
    assert sign(f"data.root={moved}") == first
    others = [sign(f"data.root={moved}", o) for o in ("seed=1", "adapter.main.rank=3", "optimizer.lr=1e-3")]
    assert len({first, *others}) == 4
    image = moved / "gta/images/00001.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert sign(f"data.root={moved}") != first


def test_a_kill_before_the_first_checkpoint_leaves_no_doubled_or_torn_points(make_config, gta2city):
    config = make_config(*TINY)
    directory = Run.identify(config, None).directory
    directory.path.mkdir(parents=True)
    (directory.path / METRICS).write_text('{"step": 1, "time": 0, "loss_ce": 9.0}\n{"step": 2, "ti')
    points = [json.loads(line) for line in (execute(config) / "metrics.jsonl").read_text().splitlines()]
    assert [p["step"] for p in points if "loss_ce" in p] == [1, 2, 3, 4]
    assert points[0]["loss_ce"] < 9


def test_the_best_checkpoint_is_kept_also_between_checkpoints(make_config, gta2city):
    config = make_config(*TINY, "trainer.eval_every=1", "trainer.checkpoint_every=4")
    path = execute(config)
    result = json.loads((path / "result.json").read_text())
    assert set(result["selection"]) == {"last", "best_source", "best_target"}
    for pointer in ("best_source", "best_target"):
        folder = (path / "checkpoints" / pointer).read_text().strip()
        assert (path / "checkpoints" / folder / "manifest.json").is_file()
    check_image_counts(path)


def test_averaged_weights_are_the_ones_that_are_scored_and_kept(make_config, gta2city):
    path = execute(make_config(*TINY, "trainer.ema=0.3"))
    kept = load_file(path / "adapter.safetensors")
    checkpoint = path / "checkpoints/step_000004"
    average, trained = (load_file(checkpoint / f"{name}.safetensors") for name in ("average", "trained"))
    assert {name for name in kept if name.startswith("trained/")} == {f"trained/{name}" for name in average}
    assert all(torch.equal(kept[f"trained/{name}"], value) for name, value in average.items())
    assert any(not torch.equal(trained[name], value) for name, value in average.items())
    loaded = recyclelora.load(path, "best_source").segmenter.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in average.items())


def test_what_the_optimizer_does_is_printed_and_recorded(config):
    path = execute(config)
    groups = {g["name"]: g for g in json.loads((path / "run.json").read_text())["parameter_groups"]}
    assert set(groups) == {
        *(f"adapter.{branch}.lora_{factor}" for branch in ("main", "sub") for factor in "ab"),
        "decoder", "decoder.undecayed",
    }  # fmt: skip
    assert groups["adapter.sub.lora_a"]["lr"] == 0.5 * groups["adapter.main.lora_a"]["lr"] == 5e-5
    result = json.loads((path / "result.json").read_text())
    total = result["params"]["backbone_trainable"] + result["params"]["decoder"]
    assert sum(g["parameters"] for g in groups.values()) == total
    assert "adapter.sub.lora_b" in (path / "train.log").read_text()


def test_a_device_that_is_not_there_and_an_unwritable_place_are_named(make_config, gta2city, tmp_path):
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"trainer\.accelerator=cuda"):
            Run.identify(make_config(*TINY, "trainer.accelerator=cuda"), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created: Not a directory; set output_dir"):
        Run.identify(make_config(*TINY, f"output_dir={tmp_path / 'file'}"), None).execute()


def test_two_processes_cannot_share_a_run_directory(config):
    import fcntl

    run = Run.identify(config, None)
    run.directory.path.mkdir(parents=True)
    with (run.directory.path / ".lock").open("w") as held:
        held.write("process 1 on elsewhere")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="in use by process 1 on elsewhere"):
            run.execute()


def test_nan_loss_stops_before_the_step_and_keeps_the_checkpoint(make_config, gta2city, monkeypatch):
    from recyclelora.models.decoders import pixel_loss

    loss, calls = pixel_loss.cross_entropy, []

    def failing(*args):
        calls.append(1)
        return loss(*args) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(pixel_loss, "cross_entropy", failing)
    config = make_config(*TINY, "trainer.checkpoint_every=2")
    words = r"step 2: the loss is nan, the gradient of .*lora_a is not finite at lr .*; the last checkpoint is kept"
    with pytest.raises(UserError, match=words):
        Run.identify(config, None).execute()
    assert (run_dir(config) / "checkpoints/last").read_text() == "step_000002\n"


def test_step_zero_is_the_frozen_model(make_config, gta2city):
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    logits = {}
    for adapter in ("frozen", "recyclelora"):
        options = TINY if adapter == "recyclelora" else [o for o in TINY if not o.startswith("adapter.")]
        config = make_config(*options, f"adapter={adapter}")
        torch.manual_seed(0)
        model = build_model(config, locate_weights(config.backbone))
        logits[adapter] = model.segmenter.eval()(images)
    torch.testing.assert_close(logits["recyclelora"], logits["frozen"], atol=1e-6, rtol=1e-5)


def test_full_fine_tuning_and_frozen_train(make_config, gta2city):
    plain = [o for o in TINY if not o.startswith("adapter.")]
    frozen = json.loads((execute(make_config(*plain, "adapter=frozen")) / "result.json").read_text())
    full = json.loads((execute(make_config(*plain, "adapter=full")) / "result.json").read_text())
    assert frozen["params"]["backbone_trainable"] == 0 and frozen["movement"] == 0.0 < full["movement"]
    assert full["params"]["backbone_trainable"] == full["params"]["total"] - full["params"]["decoder"]


def test_a_run_goes_on_with_the_masks_of_cityscapes_that_it_has_read(make_config, gta2city):
    """Both kinds are there; version 0.1.0 read labelIds, the shipped pairs now prefer labelTrainIds."""
    for ids in (gta2city / "cityscapes").rglob("*_labelIds.png"):
        save_rgb(ids.with_name(ids.name.replace("labelIds", "labelTrainIds")), np.zeros((96, 192), np.uint8))
    config = make_config(*TINY)
    now = Run.identify(config, None)
    assert mask_kinds(now.datasets.scored) == {"cityscapes": "labelTrainIds"}
    read_first = replace(config, data=replace(config.data, cityscapes_labels="labelIds"))
    then = Run.identify(read_first, None)
    began = place_of(config, replace(then.identity, dataset_digest=then.files.all_together()), None).directory
    began.path.mkdir(parents=True)
    (began.path / "config.yaml").write_text(to_yaml(read_first))
    again = Run.identify(config, None)
    assert again.directory.path == began.path and mask_kinds(again.datasets.scored) == {"cityscapes": "labelIds"}


def test_a_run_that_is_like_no_other_opens_its_data_once(make_config, gta2city, monkeypatch):
    for ids in (gta2city / "cityscapes").rglob("*_labelIds.png"):
        save_rgb(ids.with_name(ids.name.replace("labelIds", "labelTrainIds")), np.zeros((96, 192), np.uint8))
    opened = []

    def opening(*arguments):
        opened.append(arguments)
        return build_datasets(*arguments)

    monkeypatch.setattr("recyclelora.training.run.build_datasets", opening)
    new = Run.identify(make_config(*TINY), None)
    assert len(opened) == 1
    new.directory.path.with_name(new.directory.path.name[:-16] + "0123456789abcdef").mkdir(parents=True)
    Run.identify(make_config(*TINY), None)
    assert len(opened) == 1 + 2


@pytest.mark.slow
def test_init_from_another_run(make_config, gta2city, capsys):
    first = execute(make_config(*TINY))
    names = make_config(*TINY).data.classes.names
    fewer = [f"data.classes.names=[{','.join(names[:-1])}]", "data.classes.colours=[]"]
    again = Run.identify(make_config(*TINY, f"init_from={first}", "seed=5", *fewer), None)
    again.execute()
    assert "that are not used: bicycle" in capsys.readouterr().out
    Run.identify(make_config(*TINY, f"init_from={again.directory.path}", "seed=6"), None).execute()
    assert "classes that start fresh: bicycle" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"init_from=.*another adapter"):
        Run.identify(make_config(*TINY, f"init_from={first}", "adapter.sub=null"), None).execute()
    with pytest.raises(UserError, match=r"alpha is 1\.0 there and 2\.0 here"):
        Run.identify(make_config(*TINY, f"init_from={first}", "adapter.alpha=2"), None)
    about = json.loads((first / "run.json").read_text()) | {"weights_sha256": "0" * 64}
    (first / "run.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="other backbone weights"):
        Run.identify(make_config(*TINY, f"init_from={first}"), None)
    with pytest.raises(UserError, match="not a run directory"):
        Run.identify(make_config(*TINY, "init_from=nowhere"), None)


def test_intermediate_subset_and_full_sets_at_the_end(make_config, gta2city, capsys):
    config = make_config(*TINY, "trainer.eval_images=1", "trainer.eval_every=2")
    path = execute(config)
    assert "scoring last (step 4) on the full sets" in capsys.readouterr().out
    result = json.loads((path / "result.json").read_text())
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    last = [p for p in points if "miou/cityscapes" in p][-1]
    assert result["miou"]["targets"]["cityscapes"] != last["miou/cityscapes"]
    assert points[-1]["final_miou/cityscapes"] == result["miou"]["targets"]["cityscapes"]
    check_image_counts(path)


def test_streets_train_on_a_machine_with_nothing(make_config):
    options = ["data=streets", "data.augment.short_edges=[64]", "data.sources.0.subset=4", "data.source_val.subset=1"]
    targets = "data.targets=[{dataset: streets, split: night, name: night, subset: 2}]"
    path = execute(make_config(*TINY, *options, targets))
    assert set(json.loads((path / "result.json").read_text())["miou"]["targets"]) == {"night"}


def test_a_kill_between_the_last_checkpoint_and_its_pointers_changes_nothing(make_config, gta2city, monkeypatch):
    """The pointers follow from the checkpoint, so a run that goes on does not score the one before as its last."""
    from recyclelora.training import trainer

    config = make_config(*TINY, "trainer.eval_every=2")
    undisturbed = without_time(execute(config))
    again = make_config(*TINY, "trainer.eval_every=2", "fresh=true")
    point, calls = trainer.point, []

    def killed(root, pointer, step):
        calls.append(step)
        if step == 4:
            raise KeyboardInterrupt
        point(root, pointer, step)

    monkeypatch.setattr(trainer, "point", killed)
    with pytest.raises(KeyboardInterrupt):
        Run.identify(again, None).execute()
    monkeypatch.undo()
    directory = Run.identify(config, None).directory
    assert (directory.checkpoints / "last").read_text() == "step_000002\n"
    Run.identify(config, None).execute()
    assert (directory.checkpoints / "last").read_text() == "step_000004\n"
    assert without_time(directory.path) == undisturbed


def test_a_log_that_cannot_be_written_costs_a_warning(config, capsys):
    path = Run.identify(config, None).directory.path
    (path / "train.log").mkdir(parents=True)
    Run.identify(config, None).execute()
    assert "train.log: cannot add" in capsys.readouterr().err
    assert (path / "result.json").exists()


def test_passwords_on_the_command_line_are_not_kept(config, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "tracking.uri=http://me:hunter2@host"])
    about = json.loads((execute(config) / "run.json").read_text())
    assert about["command"] == "train.py tracking.uri=http://***@host"


def test_every_evaluation_says_what_share_of_the_time_evaluations_take(config):
    path = execute(config)
    points = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < p["evaluation_share"] < 1 for p in points if "miou/mean" in p)
    assert "of the time so far spent in evaluations" in (path / "train.log").read_text()


@pytest.mark.slow
def test_a_compiled_run_is_the_eager_one(make_config, gta2city):
    eager = execute(make_config(*TINY))
    config = make_config(*TINY, "trainer.compile=true")
    config.output_dir += "_compiled"
    compiled = execute(config)
    assert eager != compiled
    losses = [
        [
            p["loss_ce"]
            for line in (path / "metrics.jsonl").read_text().splitlines()
            if "loss_ce" in (p := json.loads(line))
        ]
        for path in (eager, compiled)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_how_to_compile_reaches_torch(make_config, gta2city, monkeypatch):
    modes = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: modes.append(options["mode"]))
    execute(make_config(*TINY, "trainer.compile=true", "trainer.compile_mode=reduce-overhead"))
    assert modes == ["reduce-overhead"]
