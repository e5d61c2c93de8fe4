from __future__ import annotations

from pathlib import Path

import pytest

from recyclelora.exchange.exports.folder import REPORT, replaced
from recyclelora.system.errors import UserError


def write(folder: Path, text: str) -> None:
    (folder / REPORT).write_text('{"format": "timm"}')
    (folder / text).touch(mode=0o600)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_export_takes_the_place_of_the_old_one(tmp_path: Path):
    final = tmp_path / "deep" / "timm"
    for text in ("first", "second"):
        with replaced(final) as folder:
            write(folder, text)
            assert text == "first" or names(final) == {REPORT, "first"}
    assert names(final) == {REPORT, "second"} and names(final.parent) == {"timm"}
    assert (final / "second").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [UserError("disagrees"), KeyboardInterrupt()])
def test_after_an_error_everything_is_as_it_was(tmp_path: Path, error: BaseException):
    final = tmp_path / "timm"
    with pytest.raises(type(error)), replaced(final) as folder:
        write(folder, "first")
        raise error
    assert not names(tmp_path)
    with replaced(final) as folder:
        write(folder, "first")
    with pytest.raises(type(error)), replaced(final) as folder:
        write(folder, "second")
        raise error
    assert names(final) == {REPORT, "first"} and names(tmp_path) == {"timm"}


def test_what_is_no_export_is_not_replaced(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    with replaced(tmp_path / "mine") as folder:  # empty: nothing to lose
        write(folder, "first")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(UserError, match=f"output=.*{name}: exists and is no export"), replaced(tmp_path / name):
            raise AssertionError
    assert (tmp_path / "photos" / "a.png").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/timm: cannot be written"), replaced(tmp_path / "file" / "timm"):
        raise AssertionError
