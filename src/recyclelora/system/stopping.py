"""What a command does when it is asked to stop: end at once, or, once it has something to save, when that is saved.

Ctrl-C, a closed terminal and schedulers all ask by signal. Knows neither torch nor Hydra: commands begin with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from recyclelora.system.cores import STOPPING
from recyclelora.system.errors import Interrupted

Handler = Callable[[int, FrameType | None], Any]


@contextlib.contextmanager
def ctrl_c_in_one_line(command: str) -> Iterator[None]:
    """End the process with one line where Ctrl-C finds nothing that is worth saving, such as imports."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"{command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


@contextlib.contextmanager
def unread_in_one_line(command: str) -> Iterator[None]:
    """End the process with one line where nothing reads its output any more: ``| head`` has seen enough."""
    try:
        yield
        print(end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it flushes
        print(f"{command}: nothing reads the output any more", file=sys.stderr)
        sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def ending_at_once(done: str) -> Iterator[None]:
    """Raise :class:`Interrupted` wherever a signal finds this process.

    Args:
        done: the rest of the message, such as "nothing has begun"
    """

    def end(number: int, _: FrameType | None) -> None:
        raise Interrupted(f"stopped by signal {number}: {done}", 128 + number)

    with stopping_by(end):
        yield


class StopRequest:
    """Turns a signal into a flag that is read at the next step of training, or at the next image."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._saving = False
        self._leaving = False
        self._handlers = contextlib.ExitStack()

    def requested(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.received is not None

    def interrupted(self, text: str) -> Interrupted:
        """What ends a command that has stopped; ``text`` says what is kept."""
        by = f"signal {self.received}" if self.received else "a signal to another of its processes"
        return Interrupted(f"stopped by {by}{text}", 128 + (self.received or 0))

    def __enter__(self) -> StopRequest:
        self._handlers.enter_context(stopping_by(self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Keep a second Ctrl-C, which leaves at once, from cutting off a write; a third one does."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False
        if self._leaving:
            os._exit(128 + signal.SIGINT)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            if not self._saving or self._leaving:
                os._exit(128 + signal.SIGINT)  # the last checkpoint is complete
            self._leaving = True
        elif number == signal.SIGINT:
            with contextlib.suppress(OSError):
                os.write(2, b"\nstopping as soon as everything is saved; Ctrl-C again leaves at once\n")
        self.received = number


@contextlib.contextmanager
def stopping_by(handler: Handler) -> Iterator[None]:
    """Let a function handle all signals that ask to stop; only the main thread of a process may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _let_go(terminals)
        handler(number, frame)

    before: dict[int, Any] = {}
    for number in STOPPING:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue  # nohup has promised it
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for changed, earlier in before.items():
            signal.signal(changed, signal.SIG_DFL if earlier is None else earlier)


def _let_go(terminals: list[int]) -> None:
    """A terminal that has been closed refuses what is written to it, which must not end a save."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
