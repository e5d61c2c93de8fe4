"""Every request to MLflow has an end, however slowly its answer comes."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

WHOLE_SECONDS, BYTES_A_SECOND = 60.0, 100_000.0
"""A whole request may take so long, and more for what it uploads: a server that sends a byte now and then is none."""


class Late(Exception):
    """A request took too long as a whole; no OSError, which the HTTP library would take for a pause of the server."""


@contextlib.contextmanager
def deadline(size: int = 0) -> Iterator[None]:
    """Give what the block asks of a server an end, whatever threads it waits for; on the main thread only.

    Args:
        size: bytes that it uploads

    Raises:
        Late: it took longer; one around it keeps its own end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds, began = WHOLE_SECONDS + size / BYTES_A_SECOND, time.monotonic()

    def late(number: int, frame: Any) -> None:
        raise Late(f"no whole answer within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    around, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    if 0 < around < seconds:
        signal.setitimer(signal.ITIMER_REAL, around)
    try:
        yield
    finally:
        left = max(around - (time.monotonic() - began), 0.001) if around else 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left)


def bound_requests() -> None:
    """Put a deadline on every request of this process."""
    import requests

    request = requests.Session.request
    if hasattr(request, "__wrapped__"):
        return

    @functools.wraps(request)
    def bounded(session: Any, method: str, url: str, **more: Any) -> Any:
        with deadline(_size(more.get("data"))):
            return request(session, method, url, **more)

    requests.Session.request = bounded  # type: ignore[method-assign,assignment]


def _size(data: Any) -> int:
    """Bytes of what is uploaded."""
    try:
        return os.fstat(data.fileno()).st_size
    except (AttributeError, OSError):
        return len(data) if isinstance(data, bytes | str) else 0


def leave(code: int) -> NoReturn:
    """End the process, also where threads of MLflow wait for a server that was given up: Python would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread.name.startswith("Mlflow") for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)
