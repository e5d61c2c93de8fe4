"""An adapter, a decoder and a loss of other packages: the examples, installed as a package manager would."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from installing import command, install_project
from recyclelora.testing import check_adapter, check_decoder, check_loss

from recyclelora.config.build import build_model
from recyclelora.config.compose import ConfigError, home, load_config, to_yaml, validate
from recyclelora.models.state import trainable_state
from recyclelora.runs.identity import earlier_run, trains_as
from recyclelora.system.checks import identity_fields
from recyclelora.system.plugins import installed


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A site folder with the examples, on the path of this process."""
    for name in ("bitfit_adapter", "mlp_decoder", "smoothness_loss"):
        install_project(home() / "examples" / name, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed.cache_clear()
    yield tmp_path / "site"
    installed.cache_clear()


def test_the_example_adapter_keeps_what_an_adapter_promises(site):
    from bitfit_adapter import BitFitConfig

    check_adapter(BitFitConfig(norms=True), tolerance=0)


def test_the_example_decoder_keeps_what_a_decoder_promises(site):
    from mlp_decoder import MlpDecoderConfig

    check_decoder(MlpDecoderConfig(width=16))


def test_the_example_loss_keeps_what_a_loss_promises(site):
    from smoothness_loss import SmoothnessConfig

    check_loss(SmoothnessConfig())


@pytest.fixture
def config(site, make_config):
    from mlp_decoder import MlpDecoderConfig
    from smoothness_loss import SmoothnessConfig

    config = make_config(*TINY, "backbone.pretrained=false")
    config.decoder = MlpDecoderConfig(width=16)
    config.losses = {"smoothness": SmoothnessConfig(weight=0.5, warmup=10)}
    return config


def test_a_loss_is_added_named_and_knows_the_step(config):
    segmenter = build_model(config, None).segmenter
    images, labels = torch.rand(2, 3, 64, 96) * 255, torch.zeros(2, 64, 96).long()
    losses = segmenter(images, labels)
    assert set(losses) == {"loss_ce", "loss_smoothness"} and losses["loss_smoothness"] == 0
    segmenter.begin_step(5)
    half = segmenter(images, labels)["loss_smoothness"]
    segmenter.begin_step(10)
    torch.testing.assert_close(segmenter(images, labels)["loss_smoothness"], 2 * half)
    assert half > 0 and segmenter(images).shape == (2, 19, 64, 96)


def test_a_loss_changes_nothing_that_is_stored(config):
    with_loss = trainable_state(build_model(config, None).segmenter)
    config.losses = {}
    assert with_loss.keys() == trainable_state(build_model(config, None).segmenter).keys()


def test_a_loss_works_under_autocast_and_leaves_copies_and_scores_alone(config):
    segmenter = build_model(config, None).segmenter.eval()
    segmenter.begin_step(10)
    images, labels = torch.rand(2, 3, 64, 96) * 255, torch.ones(2, 64, 96).long()
    with torch.autocast("cpu", torch.bfloat16):
        losses = segmenter(images, labels)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in segmenter.parameters() if p.requires_grad)
    assert torch.equal(copy.deepcopy(segmenter)(images), segmenter(images))


def test_a_loss_is_part_of_a_runs_identity_only_where_it_is_used(config, tmp_path):
    used = trains_as(config)
    config.losses["smoothness"].weight = 0.25
    assert trains_as(config) != used
    config.losses = {}
    assert trains_as(config) != used and "losses" not in identity_fields(config)


def test_no_run_of_the_first_release_is_taken_for_one_with_a_loss(config):
    assert earlier_run(config, None, None, None) is None


def test_stored_options_come_back_and_are_checked(config, tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config
    config.losses["smoothness"].warmup = 0
    with pytest.raises(ConfigError, match=r"losses\.smoothness\.warmup=0: must be at least 1"):
        validate(config)


def test_a_loss_with_parameters_is_refused(config):
    class Options:
        name = "learning"

        def build(self, channels, num_classes):
            return torch.nn.Linear(2, 2)

    config.losses = {"learning": Options()}
    with pytest.raises(Exception, match=r"losses\.learning: must have no parameters"):
        build_model(config, None)


def test_both_are_options_of_the_command_line(tmp_path, site):
    job = ("--cfg", "job", "--package", "losses")
    chosen = ("decoder=mlp", "losses=smoothness", "losses.smoothness.weight=0.3")
    shown = command("train.py", tmp_path, site, *chosen, *job)
    assert "smoothness:\n  kind: smoothness\n  name: smoothness\n  weight: 0.3\n  warmup: 500\n" in shown.stdout
    bad = command("train.py", tmp_path, site, *chosen[:2], "losses.smoothness.weight=0", "data=streets")
    assert bad.returncode == 2 and "losses.smoothness.weight=0.0: must be above 0" in bad.stderr


@pytest.mark.slow
def test_a_run_with_both_trains_and_says_what_it_lacks_without_them(tmp_path, gta2city, site):
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    plain = [o for o in TINY if not o.startswith("decoder")]
    extra = ["decoder=mlp", "losses=smoothness", "trainer.accumulate=2", "trainer.ema=0.1"]
    done = command("train.py", tmp_path, site, *places, *plain, *extra)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in (tmp_path / "outputs/runs").glob("*/result.json"))
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("loss_smoothness" in point for point in points)
    again = command("evaluate.py", tmp_path, None, f"run={run}")
    assert again.returncode == 2 and "decoder.kind=mlp is not known here; install the package" in again.stderr
