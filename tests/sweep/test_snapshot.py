"""The code that a sweep keeps."""

from pathlib import Path

from recyclelora.sweep import snapshot


def test_who_comes_second_finds_it_and_leaves_nothing(tmp_path: Path):
    folder = tmp_path / snapshot.FOLDER
    snapshot._copy(folder)
    made = (folder / "git.json").stat().st_mtime_ns
    assert (folder / "src/recyclelora/train.py").is_file() and (folder / "conf/train.yaml").is_file()
    snapshot._copy(folder)
    assert (folder / "git.json").stat().st_mtime_ns == made
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.FOLDER]
