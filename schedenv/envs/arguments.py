"""What the arguments of all environments mean: tasks, tables, and where rewards come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schedenv.errors import InputError, UnknownNameError
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.tasks import members, suite_names

Names = str | Sequence[str]


@dataclass(frozen=True)
class NamedTables:
    """The tables that an environment works on.

    Attributes:
        titles: What each is called; all different.
        tables: The tables.
        aliases: Other names, with the position that they stand for.
    """

    titles: tuple[str, ...]
    tables: tuple[Table, ...]
    aliases: dict[str, int]


def check_source(reward: str, table: Names | None, model: str | None, known: Sequence[str]) -> None:
    """Refuse a reward that does not exist, or arguments that do not belong to it.

    Raises:
        InputError: Says which.
    """
    if reward not in known:
        raise InputError(f"expected reward to be one of {list(known)}, got {reward!r}")
    for argument, value, owner in (("table", table, "recorded"), ("model", model, "predicted")):
        if value is not None and reward != owner:
            raise InputError(
                f"{argument}={value!r} is for reward={owner!r}, and the reward is {reward!r}; "
                "leave it out or change the reward"
            )
        if not value and reward == owner:
            needed = "a recorded table's file" if owner == "recorded" else "a cost model's folder"
            raise InputError(f"reward={owner!r} needs {argument}=..., {needed}")


def task_specs(task: Names | None, reward: str) -> list[str]:
    """The TASK strings that `task` names, suites being their members.

    Raises:
        InputError: There is none.
    """
    specs = _expanded(_several(task or ()))
    if not specs:
        raise InputError(
            f"reward={reward!r} needs task=..., such as 'gmm:1x128x128x128', a list of tasks or "
            "the name of a suite"
        )
    return specs


def read_tables(table: Names, task: Names | None) -> NamedTables:
    """Read tables, and keep those of the tasks that were asked for; all, if `task` is None.

    Raises:
        UnknownNameError: A task that no table is of.
        InputError: A file that cannot be read.
    """
    tables = {name: read_table(_table_path(name)) for name in _several(table)}
    if task is not None:
        asked = set(_expanded(_several(task)))
        known = {text for read in tables.values() for text in _called(read)}
        for name in sorted(asked - known):
            raise UnknownNameError("task of these tables", name, known)
        tables = {name: read for name, read in tables.items() if asked & set(_called(read))}
    titles = [read.info.task.name for read in tables.values()]
    if len(set(titles)) < len(titles):
        titles = list(tables)
    aliases: dict[str, int] = {}
    for position, (name, read) in enumerate(tables.items()):
        for alias in (name, *_called(read)):
            aliases.setdefault(alias, position)
    return NamedTables(tuple(titles), tuple(tables.values()), aliases)


def _table_path(name: str) -> Path:
    """The file of a table: a shipped one's if there is one of that name, else `name` itself."""
    return shipped_tables().get(name, Path(name))


def _called(table: Table) -> tuple[str, str]:
    return table.info.task.spec, table.info.task.name


def _several(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _expanded(names: Sequence[str]) -> list[str]:
    return [s for name in names for s in (members(name) if name in suite_names() else (name,))]
