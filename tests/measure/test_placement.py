"""The calling thread stays off the cores of TVM's pool.

In processes of their own: where another test has run a kernel, TVM's pool is there already.
"""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores of Linux"
)

START = """
import os, threading
from schedenv.measure.placement import Placement

everywhere = os.sched_getaffinity(0)
pinned_core = max(everywhere)
pinned = threading.Event()

def live():
    os.sched_setaffinity(0, {pinned_core})
    pinned.set()
    threading.Event().wait()

def start_pinned_thread():
    threading.Thread(target=live, daemon=True).start()
    pinned.wait()
"""


def run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START + program],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_caller_leaves_a_pinned_thread_its_core_and_may_come_back() -> None:
    run("""
start_pinned_thread()
placement = Placement()
placement.beside_pool()
assert os.sched_getaffinity(0) == everywhere - {pinned_core}
placement.anywhere()
assert os.sched_getaffinity(0) == everywhere
""")


def test_threads_that_may_run_anywhere_take_no_core_away() -> None:
    run("""
placement = Placement()
placement.beside_pool()
assert os.sched_getaffinity(0) == everywhere
placement.anywhere()
assert os.sched_getaffinity(0) == everywhere
""")
