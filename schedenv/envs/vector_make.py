"""From the vector environment's arguments to its source of points and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from schedenv import hardware as hw
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.envs.vector_predicted import PredictedSource
from schedenv.envs.vector_recorded import RecordedSource
from schedenv.envs.vector_source import TaskFacts, VectorSource
from schedenv.errors import InputError, UnknownNameError
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import SearchSpace, Space
from schedenv.tasks import SUITES, Task, members, resolve

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
    for argument, value, owner in (("table", table, "recorded"), ("model", model, "predicted")):
        if value is not None and reward != owner:
            raise InputError(
                f"{argument}={value!r} is for reward={owner!r}, and the reward is {reward!r}; "
                "leave it out or change the reward"
            )
        if not value and reward == owner:
            needed = "a recorded table's file" if owner == "recorded" else "a cost model's folder"
            raise InputError(f"reward={owner!r} needs {argument}=..., {needed}")
    if reward == "recorded":
        return _recorded(_several(table), _members(_several(task)), layout)
    return _predicted(_members(_several(task)), str(model), layout)


def _recorded(names: Sequence[str], wanted: Sequence[str], layout: Layout) -> RecordedSource:
    tables = {name: read_table(shipped_tables().get(name, Path(name))) for name in names}
    if wanted:
        known = {text for table in tables.values() for text in _called(table)}
        for task in wanted:
            if task not in known:
                raise UnknownNameError("task of these tables", task, known)
        tables = {
            name: table for name, table in tables.items() if set(wanted) & set(_called(table))
        }
    titles = [table.info.task.name for table in tables.values()]
    if len(set(titles)) < len(titles):
        titles = list(tables)
    aliases: dict[str, int] = {}
    for position, (name, table) in enumerate(tables.items()):
        for alias in (name, *_called(table)):
            aliases.setdefault(alias, position)
    facts = [
        _table_facts(title, table, layout)
        for title, table in zip(titles, tables.values(), strict=True)
    ]
    return RecordedSource(list(tables.values()), facts, aliases, layout)


def _predicted(specs: Sequence[str], folder: str, layout: Layout) -> PredictedSource:
    if not specs:
        raise InputError(
            "reward='predicted' needs task=..., such as 'gmm:1x128x128x128', a list of tasks or "
            "the name of a suite"
        )
    from schedenv.costmodel import load_model

    model = load_model(Path(folder))
    if not hasattr(model, "predict_rows"):
        raise InputError(
            f"the cost model {folder} cannot score rows of integers, which the vector environment "
            "needs; use one on knob tokens, or gymnasium.make"
        )
    hardware = hw.detect()
    tasks = [resolve(spec) for spec in specs]
    spaces = [Space(task.mod, hardware) for task in tasks]
    return predicted_source(tasks, spaces, hardware, cast(Any, model), folder, layout)


def predicted_source(
    tasks: Sequence[Task],
    spaces: Sequence[SearchSpace],
    hardware: hw.Hardware,
    model: Any,
    name: str,
    layout: Layout,
) -> PredictedSource:
    """The source of a model that is at hand; see `PredictedSource`."""
    facts = [
        _facts(task.name, task, space, hardware, layout)
        for task, space in zip(tasks, spaces, strict=True)
    ]
    return PredictedSource(tasks, spaces, facts, model, name, layout)


def _table_facts(title: str, table: Table, layout: Layout) -> TaskFacts:
    info = table.info.task
    # What an observation says of a task is in the table, its program is not.
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
    times = table.info.untuned_s, table.optimum_s
    return _facts(title, task, table.space(), table.info.hardware, layout, times)


def _facts(
    title: str,
    task: Task,
    space: SearchSpace,
    hardware: hw.Hardware,
    layout: Layout,
    times: tuple[float, float] | None = None,
) -> TaskFacts:
    layout.check(space, task.name)
    observe = KnobObservation(layout)
    seen = observe.build(task, space, hardware, space.default(), 1.0, (1.0, 1.0))
    baseline_s, optimum_s = times or (1.0, None)
    return TaskFacts(
        title,
        task.name,
        task.flops,
        baseline_s,
        optimum_s,
        times is not None,
        seen["task"],
        seen["hardware"],
    )


def _called(table: Table) -> tuple[str, str]:
    return table.info.task.spec, table.info.task.name


def _several(names: str | Sequence[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _members(listed: Sequence[str]) -> list[str]:
    """TASK strings, suites being their members."""
    return [spec for name in listed for spec in (members(name) if name in SUITES else (name,))]
