from __future__ import annotations

from recyclelora.reports.grouping import group_names, meant, short_keys, value_text
from recyclelora.reports.records import flattened


def low_rank(name: str, main: int = 32, sub: int | None = None, **more) -> dict:
    branches = {"main": {"rank": main}, "sub": None if sub is None else {"rank": sub}}
    return flattened({"adapter": {"name": name, "kind": "low_rank", "alpha": float(main), **branches}, **more})


def test_an_option_is_named_and_what_follows_from_it_is_not():
    frozen = flattened({"adapter": {"name": "frozen", "kind": "frozen"}})
    assert group_names([frozen, low_rank("lora", 16), low_rank("soma", 32)]) == [
        "adapter=frozen", "adapter=lora", "adapter=soma",
    ]  # fmt: skip


def test_what_varies_within_an_option_is_named_only_there():
    configs = [low_rank("lora", 16), low_rank("recyclelora", 32, 4), low_rank("recyclelora", 32, 8)]
    assert group_names(configs) == [
        "adapter=lora", "adapter=recyclelora, sub.rank=4", "adapter=recyclelora, sub.rank=8",
    ]  # fmt: skip


def test_a_name_is_meant_by_itself_then_by_its_words_then_by_a_part():
    names = ["adapter=lora", "adapter=recyclelora", "adapter=soma, main.rank=3", "adapter=soma, main.rank=32", "lora"]
    assert meant("lora", names) == ["lora"] and meant("lora", names[:4]) == names[:1]
    assert meant("main.rank=3", names) == names[2:3] and meant("soma", names) == names[2:4]
    assert meant("recycle", names) == names[1:2] and meant("loar", names) == []


def test_values_without_options():
    configs = [
        {"adapter.name": "x", "adapter.main.rank": 32, "adapter.sub.rank": 4},
        {"adapter.name": "x", "adapter.main.rank": 24, "adapter.sub.rank": 12},
    ]
    assert group_names(configs) == ["main.rank=32, sub.rank=4", "main.rank=24, sub.rank=12"]
    rates = [{"optimizer.lr": 1e-4}, {"optimizer.lr": 0.00031622776}]
    assert group_names(rates) == ["lr=0.0001", "lr=0.0003162"]
    decoders = [{"decoder.lr_mult": 1.0}, {"decoder.lr_mult": 2.0}]
    assert group_names(decoders) == ["decoder.lr_mult=1", "decoder.lr_mult=2"]


def test_equal_short_names_are_written_in_full():
    configs = [{"a.lr": 1, "b.lr": 1}, {"a.lr": 2, "b.lr": 2}]
    assert group_names(configs) == ["a.lr=1, b.lr=1", "a.lr=2, b.lr=2"]
    assert short_keys(["data.protocol.name", "data.targets.0.name"]) == {
        "data.protocol.name": "protocol", "data.targets.0.name": "targets.0.name",
    }  # fmt: skip


def test_one_configuration_is_named_by_its_adapter():
    assert group_names([{"adapter.name": "lora", "x": 1}]) == ["adapter=lora"]


def test_hashes_are_named_only_where_nothing_else_differs():
    weights = [{"optimizer.lr": 1, "backbone.weights": "a" * 64}, {"optimizer.lr": 1, "backbone.weights": "b" * 64}]
    assert group_names(weights) == ["weights=aaaaaaaa", "weights=bbbbbbbb"]
    weights[1]["optimizer.lr"] = 2
    assert group_names(weights) == ["lr=1", "lr=2"]


def test_flattened_leaves_out_seed_and_what_is_no_identity():
    config = {
        "seed": 3, "study": "x", "output_dir": "/a", "tracking": {"mlflow": True}, "init_from": None,
        "data": {"root": "/data", "sources": [{"dataset": "gta", "subset": 5}], "augment": {"crop": [64, 64]}},
    }  # fmt: skip
    assert flattened(config) == {
        "data.sources.0.dataset": "gta", "data.sources.0.subset": 5, "data.augment.crop": [64, 64],
    }  # fmt: skip


def test_values_as_typed():
    assert [value_text(v) for v in (True, None, 0.1, 3, "x", [1, 2])] == ["true", "null", "0.1", "3", "x", "[1, 2]"]
