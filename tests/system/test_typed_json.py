from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from recyclelora.system.errors import UserError
from recyclelora.system.typed_json import Time, read_object, read_record


class Inner(TypedDict):
    n: int


class Record(TypedDict):
    name: str
    share: float | None
    many: list[Inner]
    by: dict[str, float]
    kind: Literal["a", "b"]
    when: Time
    sure: NotRequired[bool]
    more: NotRequired[Any]


GOOD: dict[str, Any] = {
    "name": "x", "share": 1, "many": [{"n": 1}], "by": {"a": 0.5}, "kind": "a", "when": "2026-01-02T03:04:05+0000",
}  # fmt: skip


def read(tmp_path: Path, value: object) -> Record:
    (tmp_path / "a.json").write_text(json.dumps(value))
    return read_record(tmp_path / "a.json", Record)


def test_what_fits_is_read_with_what_a_later_version_adds(tmp_path: Path):
    for more in ({}, {"sure": True, "more": [1], "later": 3}, {"share": None}):
        assert read(tmp_path, GOOD | more) == GOOD | more


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 3}, "name is 3, not a text"),
        ({"share": "x"}, "share is 'x', not a number"),
        ({"share": True}, "share is True, not a number"),
        ({"share": float("nan")}, "share is nan, not a number"),
        ({"many": {}}, r"many is {}, not a list"),
        ({"many": [{"n": 1}, {"n": "2"}]}, r"many\[1\].n is '2', not a whole number"),
        ({"many": [{}]}, r"many\[0\].n is missing"),
        ({"by": {"a": None}}, "by.a is None, not a number"),
        ({"kind": ["a"]}, r"kind is \['a'\], not a or b"),
        ({"when": "yesterday"}, "when is 'yesterday', not an ISO time"),
        ({"sure": 1}, "sure is 1, not true or false"),
    ],
)
def test_what_does_not_is_named_by_file_and_field(tmp_path: Path, change: dict[str, Any], words: str):
    with pytest.raises(UserError, match=rf"^{tmp_path}/a\.json: {words}$"):
        read(tmp_path, GOOD | change)


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_another_kind_of_content_is_named(tmp_path: Path, value: object):
    with pytest.raises(UserError, match=r"a\.json: its content is .*, not an object"):
        read(tmp_path, value)
    with pytest.raises(UserError, match=r"a\.json: name is missing"):
        read(tmp_path, {})


@dataclass
class Tried:
    job: str
    began: bool = True


class Tries(TypedDict):
    values: list[Tried]


def test_a_dataclass_is_a_schema_whose_defaults_need_not_be_there(tmp_path: Path):
    path = tmp_path / "a.json"
    for value, words in [
        ({"values": [{}]}, r"values\[0\].job is missing"),
        ({}, "values is missing"),
        ({"values": [{"job": "a", "began": 1}]}, r"values\[0\].began is 1, not true or false"),
    ]:
        path.write_text(json.dumps(value))
        with pytest.raises(UserError, match=words):
            read_record(path, Tries)
    path.write_text('{"values": [{"job": "a"}]}')
    assert read_record(path, Tries) == {"values": [{"job": "a"}]}


def test_an_object_of_whatever_fields(tmp_path):
    (tmp_path / "a.json").write_text('{"x": [1]}')
    assert read_object(tmp_path / "a.json") == {"x": [1]}
    for text in ("null", "[]", '"x"', "3"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(UserError, match=r"a\.json: its content is .*, not an object"):
            read_object(tmp_path / "a.json")
