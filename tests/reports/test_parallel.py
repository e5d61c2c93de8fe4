"""The lines of a search: every trial reaches every axis, and text stays between the axes."""

from __future__ import annotations

import numpy as np

from recyclelora.reports.parallel import ABSENT, LONGEST, _ticks, _wrapped, parallel
from recyclelora.reports.space import Axis

from .test_comparison import compare, read_sweep, run_name, write_run, write_study, write_trial


def test_trials_without_a_parameter_keep_their_line(tmp_path):
    sweep = write_study(tmp_path / "s", sampler="tpe")
    for number, params in enumerate(({"a": 1, "b": 2}, {"a": 2}, {"a": 3, "b": 4})):
        path = write_run(sweep / run_name(number), 0, 0.5 + number / 20, {"adapter.main.rank": 4 + number})
        write_trial(sweep, number, params, values=[0.5 + number / 20], run_dirs=(path.name,))
    figure, _, caption = parallel(compare(read_sweep(sweep), "last", None, 0))
    (lines,) = figure.axes[0].collections
    places = np.array([path.vertices[:, 1] for path in lines.get_paths()])
    assert np.isfinite(places).all() and "without that parameter" in caption
    assert (abs(places - ABSENT) < 0.05).sum() == 1


def test_ticks_are_round_and_texts_narrow():
    log = Axis("lr", "lr", list(np.geomspace(1.1e-5, 9e-3, 20)), log=True)
    assert [text for _, text in _ticks(log)] == ["0.0001", "0.001"]
    plain = Axis("decay", "decay", list(np.linspace(0.003, 0.098, 20)), log=False)
    assert [text for _, text in _ticks(plain)] == ["0.02", "0.04", "0.06", "0.08"]
    for text in ("decoder.lr_mult", "[attn.qkv, attn.proj, mlp.fc1, mlp.fc2]", "source validation, mIoU in %"):
        lines = _wrapped(text).splitlines()
        assert len(lines) <= 3 and max(map(len, lines)) <= LONGEST
