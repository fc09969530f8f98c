"""What a policy is trained on, and what it is judged on: tables, or tasks with a cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from schedenv import hardware as hw
from schedenv.envs.arguments import read_tables, task_specs
from schedenv.errors import InputError
from schedenv.measure.table import TaskInfo
from schedenv.measure.table_file import shipped_tables
from schedenv.tasks import Task, resolve
from schedenv.training.checkpoint import LearnedTask


@dataclass(frozen=True)
class Sources:
    """Where rewards come from, and of which tasks.

    Attributes:
        learned: Tables (files or names of shipped ones) or TASK strings to train on.
        held_out: The same, never trained on.
        model: A cost model's folder, for predicted rewards; None for recorded ones.
    """

    learned: tuple[str, ...]
    held_out: tuple[str, ...]
    model: str | None = None

    @classmethod
    def of(
        cls,
        tables: Sequence[str],
        tasks: Sequence[str],
        held_out: Sequence[str],
        model: str | None,
    ) -> Sources:
        """Sort out what was named; what is held out is taken from what is trained on.

        Args:
            tables: Recorded tables.
            tasks: Suites and TASK strings, for predicted rewards.
            held_out: Tables or tasks never trained on, among the others or not.
            model: The folder of a cost model, for tasks.

        Raises:
            InputError: Neither tables nor tasks were named, or both, or tasks without a model, or
                nothing is left to train on.
        """
        if bool(tables) == bool(tasks):
            raise InputError(
                "expected either --table, for recorded rewards, or --suite or --task with --model, "
                f"for predicted ones; got {'both' if tables else 'neither'}. Shipped tables: "
                f"{', '.join(shipped_tables())}"
            )
        if bool(tasks) != (model is not None):
            raise InputError(
                "predicted rewards need --model, the folder of a cost model that schedenv fit wrote"
                if tasks
                else "--model is for predicted rewards, of a --suite or a --task; tables need none"
            )
        asked = list(tables) or task_specs(list(tasks), "predicted")
        held = list(held_out) if tables or not held_out else task_specs(list(held_out), "predicted")
        learned = [name for name in dict.fromkeys(asked) if name not in held]
        if not learned:
            raise InputError(
                f"nothing is left to train on: all of {', '.join(asked)} is held out; name more, "
                "or hold out less"
            )
        return cls(tuple(learned), tuple(dict.fromkeys(held)), model)

    @property
    def reward(self) -> str:
        """The name of the reward source."""
        return "recorded" if self.model is None else "predicted"

    @cached_property
    def model_sha256(self) -> str | None:
        """Digest of the cost model's weights; None for recorded rewards.

        Raises:
            ModelError: There is no cost model, or its description is damaged.
        """
        if self.model is None:
            return None
        from schedenv.costmodel.saved import read_info

        return read_info(Path(self.model)).weights_sha256

    def arguments(self, *, held_out: bool = False) -> dict[str, Any]:
        """The arguments of an environment on what is trained on, or on what is held out."""
        names = list(self.held_out if held_out else self.learned)
        if self.model is None:
            return {"reward": "recorded", "table": names}
        return {"reward": "predicted", "task": names, "model": self.model}

    @cached_property
    def tasks(self) -> tuple[LearnedTask, ...]:
        """What is trained on."""
        return self._described(self.learned)

    @cached_property
    def held_out_tasks(self) -> tuple[LearnedTask, ...]:
        """What is held out.

        Raises:
            InputError: A program that is trained on is among it under another name.
        """
        held = self._described(self.held_out)
        known = {(task.content_hash, task.fingerprint): task.name for task in self.tasks}
        for task in held:
            twin = known.get((task.content_hash, task.fingerprint))
            if twin is not None:
                raise InputError(
                    f"{task.name} is held out, and its program is also trained on, as {twin}; "
                    "leave one of them out"
                )
        return held

    def _described(self, names: Sequence[str]) -> tuple[LearnedTask, ...]:
        if not names:
            return ()
        if self.model is None:
            read = read_tables(list(names), None)
            return tuple(
                _learned(title, table.info.task, table.info.hardware.fingerprint)
                for title, table in zip(read.titles, read.tables, strict=True)
            )
        here = hw.detect().fingerprint
        return tuple(_learned(task.name, task, here) for task in map(resolve, names))


def _learned(title: str, task: Task | TaskInfo, fingerprint: str) -> LearnedTask:
    return LearnedTask(title, task.spec, task.name, task.family, task.content_hash, fingerprint)
