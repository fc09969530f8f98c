"""No tuning at all: the program as it came."""

from __future__ import annotations

from pathlib import Path

from schedenv.comparison.contestant import Entry
from schedenv.hardware import Hardware
from schedenv.tasks import Task
from schedenv.tuning.budget import Budget


class Untuned:
    """The contestant that does nothing: what any tuning is worth is measured from here.

    It enters no finalist, so a race's finals give it the untuned program, as they give it to every
    contestant that found nothing better.
    """

    name = "untuned"

    def run(self, task: Task, hardware: Hardware, budget: Budget, seed: int, out: Path) -> Entry:
        """Spend nothing, find nothing."""
        del task, hardware, budget, seed, out
        return Entry(curve=(), trials=0, elapsed_s=0.0, counts={}, finalists=())
