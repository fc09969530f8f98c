"""The calling thread stays off the cores of TVM's pool."""

import os
import sys
import threading

import pytest

from schedenv.measure.placement import Placement

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores of Linux"
)


@pytest.fixture
def pinned_core():
    """Another thread, pinned to one core until the test is over, as those of TVM's pool are."""
    core = max(os.sched_getaffinity(0))
    pinned, over = threading.Event(), threading.Event()

    def live() -> None:
        os.sched_setaffinity(0, {core})
        pinned.set()
        over.wait()

    thread = threading.Thread(target=live)
    thread.start()
    pinned.wait()
    yield core
    over.set()
    thread.join()


def test_the_caller_leaves_a_pinned_thread_its_core_and_may_come_back(pinned_core: int) -> None:
    everywhere = os.sched_getaffinity(0)
    placement = Placement()
    placement.beside_pool()
    assert os.sched_getaffinity(0) == everywhere - {pinned_core}
    placement.anywhere()
    assert os.sched_getaffinity(0) == everywhere


def test_threads_that_may_run_anywhere_take_no_core_away() -> None:
    everywhere = os.sched_getaffinity(0)
    placement = Placement()
    placement.beside_pool()
    assert os.sched_getaffinity(0) == everywhere
    placement.anywhere()
