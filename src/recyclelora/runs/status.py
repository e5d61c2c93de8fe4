"""How a run ended, for those who look at its directory later: with a result, with a reason, or without a word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from recyclelora.runs.directory import ENDED, is_finished
from recyclelora.system.errors import UserError, in_one_line
from recyclelora.system.storage import holder, write_json
from recyclelora.system.typed_json import read_record


@dataclass(frozen=True)
class RunEnd:
    """What has become of a run."""

    status: str
    """``running``, ``finished``, ``failed``, ``pruned``, ``paused``, ``interrupted`` or ``killed``"""
    reason: str = ""


class Ended(TypedDict):
    """``ended.json``."""

    status: Literal["failed", "interrupted"]
    reason: str


KILLED = RunEnd("killed", "it ended without a word: killed, or its machine went down")


@contextlib.contextmanager
def noted_end(run_dir: Path) -> Iterator[None]:
    """Leave ``ended.json`` with the reason when the block does not come to its end."""
    path = run_dir / ENDED
    path.unlink(missing_ok=True)
    try:
        yield
    except BaseException as error:
        status = "failed" if isinstance(error, Exception) else "interrupted"
        with contextlib.suppress(UserError):  # a full disk may be the very reason
            write_json(path, {"status": status, "reason": in_one_line(error), "time": round(time.time(), 3)})
        raise


def run_end(run_dir: Path) -> RunEnd:
    """What has become of a run, from its files and its lock."""
    if is_finished(run_dir):
        return RunEnd("finished")
    if (run_dir / ENDED).exists():
        try:
            noted = read_record(run_dir / ENDED, Ended)
        except UserError as error:
            return RunEnd("killed", str(error))
        return RunEnd(noted["status"], noted["reason"])
    if holder(run_dir) is not None:
        return RunEnd("running")
    return KILLED
