from __future__ import annotations

from pathlib import Path

from recyclelora.data.datasets import open_dataset, seeded_subset
from recyclelora.data.preparation import render_scenes, scenes_to_render


def test_only_missing_scenes_of_the_wanted_subset_are_rendered(tmp_path: Path):
    def opened(split):
        return open_dataset("streets", split, root=tmp_path, cache_dir=tmp_path / "cache")

    night = seeded_subset(opened("night"), 3, seed=0)
    assert len(scenes_to_render([opened("source_train"), night, night])) == 403
    jobs = scenes_to_render([night])
    done: list[int] = []
    render_scenes(jobs, done.append)
    assert sum(done) == 3
    assert scenes_to_render([night]) == []
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 3
