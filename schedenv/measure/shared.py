"""What measurers of several tasks need only once: TVM imported, references computed.

A measurer of its own imports TVM twice, for its reference and for its workers: seconds, which a
network of twenty tasks would pay twenty times. A bench pays them once; a measurer on it starts in
the time of a fork.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from schedenv import hardware as hw
from schedenv.errors import MachineError
from schedenv.measure import reference
from schedenv.measure.nursery import Nursery
from schedenv.measure.pool import Limits
from schedenv.measure.process import Spawn
from schedenv.measure.scratch import make_scratch
from schedenv.tasks import Task


class Bench:
    """A nursery and verification data for measurers of several tasks, one after the other.

    Args:
        tasks: All that will be measured.
        hardware: The machine.
        limits: Deadlines.
        seed: Of the verification inputs.

    Attributes:
        failures: Tasks that cannot be verified, by content hash, with the reason.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        hardware: hw.Hardware,
        *,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        self._scratch = make_scratch()
        try:
            wanted = [(task, self._data_dir(task)) for task in tasks]
            for _, directory in wanted:
                directory.mkdir(exist_ok=True)
            reasons = reference.prepare_all(wanted, hardware, seed)
            self.failures = {
                task.content_hash: reason
                for task, reason in zip(tasks, reasons, strict=True)
                if reason is not None
            }
            self._nursery = Nursery(
                None,
                self._scratch,
                hw.worker_environment(hardware),
                (limits or Limits()).start_s,
            )
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def data_dir(self, task: Task) -> Path:
        """Where the verification data of a task lie.

        Raises:
            MachineError: Its reference could not be computed.
        """
        reason = self.failures.get(task.content_hash)
        if reason is not None or not self._data_dir(task).exists():
            raise MachineError(
                f"the reference of {task.name} cannot be computed "
                f"{reason or '(it is not one of the tasks of this bench)'}"
            )
        return self._data_dir(task)

    def spawn_for(self, setup_file: Path) -> Spawn:
        """How workers that set themselves up by a file are started."""
        return self._nursery.spawn_for(setup_file)

    def close(self) -> None:
        """Kill the nursery, and with it all workers; remove the data."""
        self._nursery.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _data_dir(self, task: Task) -> Path:
        return self._scratch / task.content_hash
