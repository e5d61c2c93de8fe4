from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from recyclelora.adapters.config import LowRankConfig
from recyclelora.config.compose import ConfigError, home, load_config, register_schemas, to_yaml, typed

# Adapters are composed in adapters/test_adapter_configs.py, which puts them into a model.
OPTIONS = sorted(
    f"{path.parent.relative_to(home() / 'conf').as_posix()}={path.stem}"
    for group in ("backbone", "adapter/split", "decoder", "data", "data/protocol", "trainer", "optimizer",
                  "tracking", "experiment", "hydra/launcher", "hydra/sweeper")
    for path in (home() / "conf" / group).glob("*.yaml")
)  # fmt: skip


SHARED = ["trainer.strategy=fsdp", "trainer.devices=2"]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_shipped_option_composes_and_passes_its_checks(option, make_config):
    if not option.startswith("hydra/"):
        make_config(option)
        return
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        compose("train", [option])


def test_defaults_are_the_published_recipe(make_config):
    config = make_config()
    assert (config.backbone.name, config.adapter.name, config.data.name) == ("dinov2_large", "recyclelora", "gta2city")
    assert (config.trainer.max_steps, config.trainer.batch_size, config.trainer.eval_every) == (40_000, 4, 4_000)
    assert config.data.augment.crop == [512, 512]
    d = config.decoder
    assert (d.kind, d.num_queries, d.width, d.encoder_layers, d.decoder_layers) == ("mask2former", 100, 256, 6, 9)
    assert (d.num_heads, d.encoder_width, d.decoder_width, d.pyramid, d.lr_mult) == (8, 1024, 2048, "bilinear", 1.0)
    assert (d.loss.class_weight, d.loss.mask_weight, d.loss.dice_weight, d.loss.no_object_weight) == (2, 5, 5, 0.1)
    assert (d.loss.num_points, d.loss.oversample, d.loss.importance) == (12544, 3.0, 0.75)
    main, sub = config.adapter.main, config.adapter.sub
    assert (main.init, main.rank, main.lr_mult, main.weight_decay) == ("rrqr_minor", 32, 1.0, 0.0)
    assert (sub.init, sub.rank, sub.lr_mult, sub.weight_decay) == ("rrqr_major", 4, 0.5, 0.0)
    o = config.optimizer
    assert (o.lr, o.weight_decay, o.weight_decay_end, o.power, o.warmup_steps) == (1e-4, 0.05, 1e-5, 0.9, 0)
    assert (config.data.protocol.window, config.data.protocol.stride) == (512, 341)


def test_rank_splits(make_config):
    assert make_config("adapter/split=real2real").adapter.sub.rank == 2
    assert make_config("adapter/split=main_only").adapter.sub is None
    only = make_config("adapter/split=sub_only").adapter
    assert (only.main.init, only.main.rank, only.main.lr_mult, only.sub) == ("rrqr_major", 4, 0.5, None)


def test_config_round_trip(make_config, tmp_path: Path):
    for options in (["adapter=frozen"], ["adapter=recyclelora"], ["adapter=full", "data=streets"]):
        config = make_config(*options)
        (tmp_path / "config.yaml").write_text(to_yaml(config))
        assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["adapter.main.rank=0"], ["adapter.main.rank=0", "at least 1"]),
        (["adapter.alpha=nan"], ["adapter.alpha=nan", "above 0"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1", "above 0"]),
        (["adapter.scale_rule=fixd"], ["adapter.scale_rule", "did you mean fixed"]),
        (["adapter.scale_rule=fixed"], ["adapter.scale", "scale_rule=fixed"]),
        (["adapter.main.init=rrqr_minr"], ["adapter.main.init", "did you mean rrqr_minor"]),
        (["adapter.blocks=first"], ["adapter.blocks", "range"]),
        (["adapter.targets=[]"], ["adapter.targets", "pattern"]),
        (["+adapter.rnk=3"], ["adapter.rnk=3", "no such key"]),
        (["+adapter._target_=os.system"], ["adapter._target_", "no such key"]),
        (["+backbone.modle=x"], ["backbone.modle", "did you mean model"]),
        (["data.sources=[]"], ["data.sources", "at least one"]),
        (["data.augment.crop=[100,512]"], ["data.augment.crop", "100", "patch size 16"]),
        (["data.protocol.stride=600"], ["data.protocol.stride", "512"]),
        (["trainer.batch_size=3", "trainer.devices=2"], ["trainer.batch_size", "2 parts"]),
        (["trainer.strategy=fsdp"], ["trainer.strategy", "several processes"]),
        ([*SHARED, "trainer.precision=16-mixed"], ["trainer.strategy", "bf16-mixed"]),
        ([*SHARED, "adapter=adalora"], ["trainer.strategy", "adapter=adalora", "use ddp"]),
        ([*SHARED, "adapter=kasa"], ["trainer.strategy", "adapter=kasa", "use ddp"]),
        ([*SHARED, "losses=orthogonality"], ["trainer.strategy", "losses.orthogonality", "use ddp"]),
        ([*SHARED, "backbone=sam_base"], ["trainer.strategy", "SAM", "use ddp"]),
        (["trainer.precision=fp32"], ["trainer.precision", "32-true"]),
        (["trainer.epochs=20", "trainer.min_steps=300", "trainer.max_steps=4"],
         ["trainer.min_steps", "max_steps, 4", "trainer.epochs=null"]),
        (["trainer.compile_mode=default"], ["trainer.compile_mode", "trainer.compile=true"]),
        (["trainer.compile=true", "trainer.compile_mode=reduce_overhead"], ["did you mean reduce-overhead"]),
        (["data.augment.crop=[512]"], ["data.augment.crop", "height, width"]),
        (["data.augment.hue=-1"], ["data.augment.hue=-1", "at least 0"]),
        (["data.augment.contrast=[1.5]"], ["data.augment.contrast", "low, high"]),
        (["trainer.devices=0"], ["trainer.devices=0", "at least 1"]),
        (["backbone.patch_size=0"], ["backbone.patch_size=0", "at least 1"]),
        (["objective=targets"], ["objective", "target_mean"]),
        (["backbone.levels=[1,2]"], ["backbone.levels", "4 blocks"]),
        (["backbone.image_size=[100,100]"], ["backbone.image_size", "16"]),
        (["data.classes.ignore_index=3"], ["data.classes.ignore_index", "19"]),
        (["decoder.width=100"], ["decoder.width=100", "32"]),
        (["decoder.num_heads=7"], ["decoder.num_heads=7", "256"]),
        (["decoder.pyramid=bilinaer"], ["decoder.pyramid", "did you mean bilinear"]),
        (["decoder.loss.importance=1.5"], ["decoder.loss.importance=1.5", "[0, 1]"]),
        (["decoder=fpn", "decoder.dropout=nan"], ["decoder.dropout=nan", "[0, 1)"]),
        (["decoder=eomt", "decoder.num_blocks=0"], ["decoder.num_blocks=0", "at least 1"]),
        (["decoder=eomt", "decoder.width=64"], ["decoder.width=64", "no effect", "backbone's", "inside=true"]),
        (["decoder=eomt", "decoder.anneal_start=0.9"], ["decoder.anneal_start=0.9", "anneal_end=0.833"]),
        (["decoder=query_tokens", "decoder.anneal_power=2"], ["decoder.anneal_power=2", "nothing is masked"]),
        (["adapter.name=../up"], ["adapter.name", "names files"]),
        (["backbone.name=/tmp/up"], ["backbone.name", "names files"]),
        (["data.name=.."], ["data.name", "names files"]),
        (["study=../up"], ["study", "names files"]),
        (["data.targets=[{dataset: gta, split: val, name: ..}]"], ["data.targets.0.name", "names files"]),
        (["backbone.model=hf-hub:someone/model"], ["backbone.model", "architectures"]),
        (["data.protocol.scales=[[1]]"], ["data.protocol.scales", "above 0"]),
        (["trainer.stall_timeout=0"], ["trainer.stall_timeout=0", "at least 1"]),
        (["data.subset_seed=-1"], ["data.subset_seed=-1", "at least 0"]),
        (["backbone.mean=[0.5]"], ["backbone.mean", "red, green, blue"]),
        (["backbone.std=[0.2,0,0.2]"], ["backbone.std", "above 0"]),
        (["backbone.image_size=[0,0]"], ["backbone.image_size", "16"]),
        (["adapter=rein", "adapter.link=false", "adapter.link_features=true"], ["link_features", "no lent queries"]),
        (["adapter=full", "adapter.weight_decay=-1"], ["adapter.weight_decay=-1", "at least 0"]),
    ],
)  # fmt: skip
def test_bad_values_are_refused_by_key(overrides, words, make_config):
    with pytest.raises(ConfigError) as refusal:
        make_config(*overrides)
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("group", ["adapter", "decoder"])
@pytest.mark.parametrize("value", [1, "x", None, [[1]], {"rank": 1}])
def test_a_group_that_is_a_plain_value_is_refused(group: str, value: object):
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        node = compose("train", ["data.root=."])
    OmegaConf.update(node, group, value, merge=False)
    with pytest.raises(ConfigError, match=f"^{group}=.*must be an option of this group"):
        typed(node)


def test_a_run_of_a_kind_that_is_not_installed_is_named_once(make_config, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(make_config("adapter=frozen")).replace("kind: frozen", "kind: lost"))
    with pytest.raises(ConfigError) as refusal:
        load_config(path)
    assert str(refusal.value) == f"{path}: adapter.kind=lost is not known here; install the package it comes from"


@pytest.mark.parametrize(
    "text",
    [
        "backbone: !!python/object/apply:os.system ['true']\n", "[" * 5000, "a: &a [x]\nb: [*a, *a]\n", "", "- 1\n",
        "seed: ${oc.env:HOME}\n", "\x00", "adapter: 3\n", "adapter: {kind: [1]}\n", "a: [1,\n",
    ],
)  # fmt: skip
def test_a_file_that_is_no_runs_configuration_is_one_line(text: str, tmp_path: Path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: ") as refusal:
        load_config(tmp_path / "config.yaml")
    assert len(str(refusal.value).splitlines()) == 1


def test_all_bad_values_are_listed_at_once(make_config):
    with pytest.raises(ConfigError) as refusal:
        make_config("seed=-1", "optimizer.eps=0", "trainer.log_every=0")
    assert len(str(refusal.value).splitlines()) == 3


def run_cli(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(home() / script), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_only_training_is_swept(tmp_path: Path):
    done = run_cli("prepare.py", "-m", "adapter=lora,soma", f"output_dir={tmp_path}")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "-m is for train.py: prepare takes one setting at a time" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adapter.main.rnak=3"], ["adapter.main.rnak", "did you mean rank"]),
        (["adapter=recyclelra"], ["adapter=recyclelra", "did you mean recyclelora", "frozen"]),
        (["seed=x"], ["seed=x", "whole number"]),
        (["bogus=1"], ["bogus"]),
        (["adapter.main.rank=0"], ["adapter.main.rank=0"]),
        (["sweeps=rank_split"], ["sweeps=rank_split needs a multirun", "train.py -m"]),
        (["hydra/launcher=slurm"], ["hydra/launcher=slurm needs a multirun"]),
        (["adapter.main={rank: 3"], ["adapter.main"]),
        (["-m", "study=../up"], ["study=../up", "names files"]),
        (["hydra.launcher._target_=subprocess.Popen"], ["nothing is built from a _target_"]),
        (["+hydra.callbacks.x={_target_: shutil.copyfile, src: a, dst: b}"], ["shutil.copyfile"]),
    ],
)
def test_command_line_mistakes_end_in_one_line(arguments, words):
    done = run_cli("train.py", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr


def test_configuration_is_checked_before_torch_is_imported():
    code = (
        "import sys; from recyclelora import train, evaluate, predict; import recyclelora.commands.launch;"
        "assert not {'torch', 'timm', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_missing_values_are_named():
    done = run_cli("evaluate.py")
    assert done.returncode == 2
    assert "run" in done.stderr
    assert "Traceback" not in done.stderr


def test_typed_gives_dataclasses_all_the_way(make_config):
    config = make_config()
    assert isinstance(config.adapter, LowRankConfig)
    assert config.data.sources[0].dataset == "gta"
