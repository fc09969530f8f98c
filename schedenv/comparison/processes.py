"""Attempts of a race that go on at once, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from threadpoolctl import threadpool_limits

from schedenv.comparison.attempts import Attempt, Key

Make = Callable[[Key], Attempt]

_make: Make | None = None
"""What the workers run: a process inherits it by fork, for agents need not be picklable."""


def at_once(make: Make, keys: Sequence[Key], jobs: int) -> Iterator[Attempt]:
    """Make attempts, `jobs` at a time, and give them as they are over.

    Args:
        make: Makes the attempt of a key. What it raises is raised here.
        keys: Of the attempts.
        jobs: Processes.
    """
    global _make  # noqa: PLW0603 - see its comment
    _make = make
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, initializer=_begin) as pool:
        yield from pool.imap_unordered(_attempt, keys)


def _begin() -> None:
    # Whoever interrupts a race interrupts the process that started it, which ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # As many threads as processes would fight for the cores.
    threadpool_limits(1)


def _attempt(key: Any) -> Attempt:
    assert _make is not None
    return _make(key)
