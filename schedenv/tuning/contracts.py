"""What the tuning loop needs of a task and of a store: less than the real ones offer.

So a search can be simulated on a recorded table, where there is no program and nothing to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from schedenv.measure.result import Result
from schedenv.records import Record


class TunedTask(Protocol):
    """A task by identity; `schedenv.tasks.Task` is one."""

    @property
    def name(self) -> str:
        """Name for people."""
        ...

    @property
    def content_hash(self) -> str:
        """Hash of the program's structure."""
        ...


class ResultStore(Protocol):
    """Where results go; `schedenv.records.RecordStore` is one."""

    def records(self, task_hash: str | None = None) -> list[Record]:
        """What is known already, oldest first."""
        ...

    def append(
        self,
        task_hash: str,
        task_name: str,
        canonical: str,
        result: Result,
        elapsed_s: float,
        conditions: Mapping[str, Any],
    ) -> None:
        """Keep one result."""
        ...
