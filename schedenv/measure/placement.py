"""Keeps the thread that calls kernels off the cores of the threads that help it.

TVM's thread pool pins every thread of its own to a core and leaves the calling thread free
(`src/runtime/threading_backend.cc`). When the caller wakes up on a core that a pool thread owns,
the two share it, and the kernel runs at half its speed until the scheduler moves one of them:
milliseconds later, or after the measurement. Processes that compile side by side and then take
turns at timing wake up there half of the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path


class Placement:
    """Where the current thread may run; on systems other than Linux nothing is changed.

    Make it, and call it, in the thread that calls kernels.
    """

    def __init__(self) -> None:
        self._everywhere = os.sched_getaffinity(0) if sys.platform == "linux" else set()
        self._beside_pool = False

    def beside_pool(self) -> None:
        """Stay off the cores to which other threads of this process are pinned."""
        if sys.platform != "linux" or self._beside_pool:
            return
        free = self._everywhere - _pinned_cores()
        if free:
            os.sched_setaffinity(0, free)
        self._beside_pool = True

    def anywhere(self) -> None:
        """Run wherever the process was allowed to run."""
        if sys.platform == "linux" and self._beside_pool:
            os.sched_setaffinity(0, self._everywhere)
        self._beside_pool = False


def _pinned_cores() -> set[int]:
    """The cores that other threads of this process are pinned to, one core a thread."""
    own = threading.get_native_id()
    found: set[int] = set()
    for thread in (int(entry.name) for entry in Path("/proc/self/task").iterdir()):
        # A thread may end while the list is read.
        with contextlib.suppress(ProcessLookupError):
            allowed = os.sched_getaffinity(thread)
            if thread != own and len(allowed) == 1:
                found |= allowed
    return found
