"""How deep the way from a command to the step of the optimizer is."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import torch
from conftest import TINY

import recyclelora
from recyclelora.commands import train

SOURCE = str(Path(recyclelora.__file__).parent)


def test_few_frames_lie_between_the_command_and_the_step(tmp_path, gta2city, monkeypatch):
    step, found = torch.optim.AdamW.step, []

    def stepping(self, *arguments, **named):
        frame: FrameType | None = sys._getframe()
        names = []
        while frame is not None:
            if frame.f_code.co_filename.startswith(SOURCE):
                names.append(frame.f_code.co_qualname)
            frame = frame.f_back
        found.append(names[::-1])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)
    folders = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'data'}"]
    monkeypatch.setattr(sys, "argv", ["train.py", *TINY, *folders])
    train.main()
    assert found
    for names in found:
        first, *between = names
        assert first == "main" and len(between) <= 6, names
