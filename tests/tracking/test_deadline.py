"""Whatever is asked of MLflow has an end, also where threads of its own wait for the answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from recyclelora.tracking.mlflow import deadline
from recyclelora.tracking.mlflow.deadline import Late


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(deadline, "WHOLE_SECONDS", 0.2)


def test_a_thread_pool_that_waits_for_ever_is_given_up():
    over = threading.Event()
    pool = ThreadPoolExecutor()
    with pytest.raises(Late, match="no whole answer"), deadline.deadline():
        pool.submit(over.wait).result()
    over.set()


def test_what_is_uploaded_has_its_time_and_one_around_keeps_its_own_end():
    alarm, _ = signal.getitimer(signal.ITIMER_REAL)  # that of pytest-timeout
    with deadline.deadline(size=50_000):  # half a second more
        time.sleep(0.3)
    began = time.monotonic()
    with pytest.raises(Late), deadline.deadline(), deadline.deadline(size=10**9):
        time.sleep(5)
    assert time.monotonic() - began < 2
    with pytest.raises(Late), deadline.deadline():
        with deadline.deadline():
            pass
        time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(alarm, abs=20)


def test_a_process_ends_though_a_thread_still_waits():
    code = """
import threading
from concurrent.futures import ThreadPoolExecutor
from recyclelora.tracking.mlflow.deadline import leave
ThreadPoolExecutor(thread_name_prefix="MlflowHttpArtifactRepository").submit(threading.Event().wait)
print("said")
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "said\n")
