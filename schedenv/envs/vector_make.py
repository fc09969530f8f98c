"""From the vector environment's arguments to its source of points and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.envs.vector_recorded import RecordedSource
from schedenv.envs.vector_source import TaskFacts, VectorSource
from schedenv.errors import InputError
from schedenv.hardware import Hardware
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import SearchSpace
from schedenv.tasks import Task

REWARDS = ("recorded", "predicted")


def make_vector_source(
    reward: str,
    task: str | Sequence[str] | None,
    table: str | Sequence[str] | None,
    model: str | None,
    layout: Layout,
) -> VectorSource:
    """Read what the arguments name.

    Raises:
        InputError: They cannot be used, or not together.
    """
    if reward == "measured":
        raise InputError(
            "the vector environment steps all environments at once, and measuring is one candidate "
            "at a time; use gymnasium.make(..., reward='measured'), or reward='recorded' with "
            "table=... or reward='predicted' with model=..."
        )
    if reward not in REWARDS:
        raise InputError(f"expected reward to be one of {list(REWARDS)}, got {reward!r}")
    if table is None:
        raise InputError("reward='recorded' needs table=...: a path, or the name of a shipped one")
    return _recorded(_several(table), _several(task), layout)


def _recorded(names: Sequence[str], tasks: Sequence[str], layout: Layout) -> RecordedSource:
    tables = [read_table(shipped_tables().get(name, Path(name))) for name in names]
    known = [name for table in tables for name in (table.info.task.spec, table.info.task.name)]
    for task in tasks:
        if task not in known:
            raise InputError(
                f"expected task to be one that the tables hold ({', '.join(dict.fromkeys(known))}) "
                f"or to be left out, got {task!r}"
            )
    return RecordedSource(tables, [_table_facts(table, layout) for table in tables], layout)


def _table_facts(table: Table, layout: Layout) -> TaskFacts:
    info = table.info.task
    task = Task(
        spec=info.spec,
        name=info.name,
        family=info.family,
        mod=cast(Any, None),
        arguments=(),
        flops=info.flops,
        bytes=info.bytes,
        reduction_length=1,
        reference=None,
    )
    return task_facts(task, table.space(), table.info.hardware, table.info.untuned_s, layout)


def task_facts(
    task: Task, space: SearchSpace, hardware: Hardware, baseline_s: float, layout: Layout
) -> TaskFacts:
    """What the observation says of a task, and what rates need."""
    layout.check(space, task.name)
    observe = KnobObservation(layout)
    seen = observe.build(task, space, hardware, space.default(), 1.0, (1.0, 1.0))
    return TaskFacts(task.name, task.flops, baseline_s, seen["task"], seen["hardware"])


def _several(names: str | Sequence[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)
