"""Which run it is."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from recyclelora.commands.launch import Job
from recyclelora.config.compose import load_config
from recyclelora.runs.identity import FREE, Identity, signature, trains_as
from recyclelora.system.checks import added, additions, before_additions, identity_fields

FIRST_RELEASE = Path(__file__).parents[1] / "first_release/configs"
SIGNATURES: dict[str, str] = json.loads((FIRST_RELEASE / "signatures.json").read_text())


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_configuration_of_the_first_release_is_still_the_same_run(name: str):
    """Configurations and signatures were written by version 0.1.0: options added since then leave both as they are."""
    config = load_config(FIRST_RELEASE / f"{name}.yaml")
    assert signature(config, Identity("0" * 64, "1" * 64, "32-true", 1)) == SIGNATURES[name]


def test_an_added_option_is_part_of_the_identity_only_where_it_is_used():
    @dataclass
    class Part:
        old: int = 1
        new: int = added(0)
        names: list[str] = added(list)

    assert identity_fields({"parts": [Part()]}) == {"parts": [{"old": 1}]}
    assert identity_fields(Part(new=2, names=["a"])) == {"old": 1, "new": 2, "names": ["a"]}
    assert before_additions(Part(old=3, new=2, names=["a"])) == (Part(old=3), ["new=0", "names=[]"])

    @dataclass
    class Whole:
        part: Part = added(Part)

    assert identity_fields(Whole()) == {} and additions(Whole)["part.new"] == 0 and additions(Whole)["part"]["old"] == 1
    assert before_additions(Whole(Part(new=2))) == (Whole(), ["part.new=0"])


def test_a_younger_option_without_effect_leaves_the_run_what_it_was(make_config):
    """The published recipe in float32 is the run that 0.1.0 began, though its option files now say more."""
    pretrained, random = (Identity(weights, "1" * 64, "32-true", 1) for weights in ("0" * 64, None))
    mixed = Identity("0" * 64, "1" * 64, "bf16-mixed", 1)
    now, before = make_config("experiment=gta2cbm"), make_config("experiment=gta2cbm")
    before.adapter.mixed_precision, before.backbone.positions = "fold", "laid_out"
    assert signature(now, pretrained) == signature(before, pretrained)
    assert signature(now, mixed) != signature(before, mixed)
    for config in (now, before):
        config.data.protocol.mode = "whole"
    assert signature(now, pretrained) != signature(before, pretrained)
    assert signature(now, random) == signature(before, random)


def test_processes_that_share_the_model_do_the_same_run(make_config):
    """As on another accelerator, only the order of sums differs: a run may go on either way."""
    copies, shared = (make_config("trainer.devices=2", f"trainer.strategy={name}") for name in ("ddp", "fsdp"))
    identity = Identity("0" * 64, "1" * 64, "32-true", 2)
    assert signature(shared, identity) == signature(copies, identity)


@pytest.mark.parametrize(
    "change",
    [
        "trainer.precision=bf16-mixed", "trainer.devices=2", "trainer.num_nodes=2", "trainer.accelerator=cpu",
        "data.root=elsewhere", "data.cityscapes_labels=labelIds", "init_from=a_run", "backbone.checkpoint=weights.pth",
        "adapter.mixed_precision=fold", "backbone.positions=laid_out", "optimizer.lr=1e-3", "seed=7",
    ],
)  # fmt: skip
def test_a_sweep_tells_apart_whatever_may_train_otherwise(make_config, change: str):
    assert trains_as(make_config("experiment=gta2cbm", change)) != trains_as(make_config("experiment=gta2cbm"))


@pytest.mark.parametrize(
    "change",
    ["trainer.num_workers=1", "trainer.log_every=3", "output_dir=other", "study=b", "tracking=none", "fresh=true"],
)
def test_a_sweep_trains_once_what_differs_in_nothing_that_is_computed(make_config, change: str):
    assert change.partition("=")[0] in FREE
    assert trains_as(make_config(change)) == trains_as(make_config())


def test_a_sweep_asks_for_what_may_train_otherwise(make_config):
    def node(precision: str) -> DictConfig:
        return OmegaConf.structured(make_config(f"trainer.precision={precision}"))

    assert Job.identity(node("32-true")) != Job.identity(node("bf16-mixed"))
    assert Job.identity(node("32-true")) == Job.identity(node("32-true"))


def test_a_users_own_folder_is_told_apart_by_its_place(make_config):
    here, there = make_config("data=folder"), make_config("data=folder", "data.folder.root=elsewhere")
    assert trains_as(here) != trains_as(there)
