"""From the vector environment's arguments to its source of points and rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from schedenv import hardware as hw
from schedenv.envs.arguments import NamedTables, check_source, read_tables, task_specs
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.envs.vector_predicted import PredictedSource
from schedenv.envs.vector_recorded import RecordedSource
from schedenv.envs.vector_source import TaskFacts, VectorSource
from schedenv.errors import InputError
from schedenv.space import SearchSpace, Space
from schedenv.tasks import Task, resolve
from schedenv.tasks.description import DescribedTask

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
    check_source(reward, table, model, REWARDS)
    if reward == "recorded":
        assert table is not None
        return _recorded(read_tables(table, task), layout)
    return _predicted(task_specs(task, reward), str(model), layout)


def _recorded(named: NamedTables, layout: Layout) -> RecordedSource:
    facts = [
        _facts(
            title,
            table.info.task,
            table.space(),
            table.info.hardware,
            layout,
            (table.info.untuned_s, table.optimum_s),
        )
        for title, table in zip(named.titles, named.tables, strict=True)
    ]
    return RecordedSource(list(named.tables), facts, named.aliases, layout)


def _predicted(specs: Sequence[str], folder: str, layout: Layout) -> PredictedSource:
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
    spaces: Sequence[Space],
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


def _facts(
    title: str,
    task: DescribedTask,
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
