"""Event files in ``<run>/tensorboard``: ``tensorboard --logdir outputs`` shows all runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from recyclelora.config.compose import load_config
from recyclelora.runs.directory import CONFIG, RECORD
from recyclelora.system.storage import folder_inside
from recyclelora.tracking.feed import Feed
from recyclelora.tracking.run_facts import flat_parameters


class TensorBoard:
    """Writes a run anew whenever it is opened: a file that is appended to would keep what a resumed run takes back.

    Torch is not imported; PNG files go in as they are.
    """

    def __init__(self, run_dir: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.feed = Feed(run_dir)
        folder = folder_inside(run_dir, "tensorboard")
        for earlier in folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._writer = EventFileWriter(str(folder))
        start = SessionLog(status=SessionLog.START)  # an open TensorBoard forgets what it has read before
        self._writer.add_event(Event(session_log=start, step=0))
        began = (run_dir / RECORD).stat().st_mtime
        hparams = {key: _plain(value) for key, value in flat_parameters(load_config(run_dir / CONFIG)).items()}
        self._add(0, began, hparams_pb(hparams, trial_id=run_dir.name, start_time_secs=began))

    def point(self, step: int, time: float, values: dict[str, float]) -> None:
        """Add scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(step, time, Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]))

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a PNG file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = path.read_bytes()
        width, height = Image.open(path).size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._add(step, path.stat().st_mtime, Summary(value=[Summary.Value(tag=name, image=image)]))

    def flush(self) -> None:
        """Write to disk."""
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """End the file."""
        self._writer.close()

    def _add(self, step: int, time: float, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time, step=step, summary=summary))


def _plain(value: Any) -> Any:
    """What TensorBoard takes as a hyperparameter."""
    return value if isinstance(value, bool | int | float | str) else str(value)
