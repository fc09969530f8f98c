"""Where races take place: on recorded tables, exactly; and live, on this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from schedenv.comparison.attempts import Attempt, Facts, keep_finals, read_finals
from schedenv.comparison.contestant import AgentContestant, Contestant, Entry, contestant
from schedenv.comparison.finals import confirm_all, is_current
from schedenv.comparison.race import Watcher
from schedenv.comparison.scores import put_to_scale
from schedenv.envs.arguments import read_tables
from schedenv.errors import AgentError, InputError, MachineError, StoreError
from schedenv.hardware import Hardware, detect
from schedenv.measure.table import Table
from schedenv.measure.table_file import shipped_tables
from schedenv.tasks import Task, resolve_many
from schedenv.tuning.agent import AgentFactory, find_agent
from schedenv.tuning.budget import Budget
from schedenv.tuning.simulate import simulate

RUNS = "attempts"


class RecordedArena:
    """Recorded tables: exact, offline, and the same every time.

    Args:
        agents: The contestants.
        tables: By title.
    """

    independent = True

    def __init__(self, agents: Sequence[AgentFactory], tables: Mapping[str, Table]) -> None:
        self._factories = {factory.name: factory for factory in agents}
        self._tables = tables
        self.agents = [factory.name for factory in agents]
        self.tasks = list(tables)

    def describe(self) -> dict[str, Any]:
        """That it is on tables; see `Arena`."""
        return {"tables": True, "hardware": None, "versions": _versions()}

    @property
    def programs(self) -> dict[str, str]:
        """Hashes of the tasks' programs, by title."""
        return {title: table.info.task.content_hash for title, table in self._tables.items()}

    def attempt(self, task: str, agent: str, seed: int, budget: Budget) -> Attempt:
        """Search a table; see `Arena`."""

        def run() -> Entry:
            found = simulate(self._tables[task], self._factories[agent], budget, seed)
            steps = tuple((step.seconds, step.trials, step.best_s) for step in found.curve)
            return Entry(steps, found.trials, found.elapsed_s, found.counts, (), found.fault)

        return _attempt(task, agent, seed, run)

    def finish(self, attempts: Sequence[Attempt], watcher: Watcher) -> None:
        """Nothing is left to do: a table's times are final."""

    def judge(self, attempts: Sequence[Attempt]) -> tuple[list[Facts], list[Attempt]]:
        """By the known optimum; see `Arena`."""
        facts = [
            Facts(title, table.info.untuned_s, table.optimum_s)
            for title, table in self._tables.items()
        ]
        return facts, list(attempts)


class LiveArena:
    """This machine: every attempt measures anew, and the finalists of all are timed together.

    Args:
        contestants: Who takes part.
        tasks: The tasks, with different names.
        hardware: This machine.
        out: The race's directory.

    Raises:
        MemoryLimitError: A task does not fit in memory.
    """

    independent = False

    def __init__(
        self,
        contestants: Sequence[Contestant],
        tasks: Sequence[Task],
        hardware: Hardware,
        out: Path,
    ) -> None:
        for task in tasks:
            task.check_memory()
        self._contestants = {one.name: one for one in contestants}
        self._tasks = {task.name: task for task in tasks}
        self._hardware, self._out = hardware, out
        self.agents = [one.name for one in contestants]
        self.tasks = [task.name for task in tasks]

    def describe(self) -> dict[str, Any]:
        """The machine; see `Arena`."""
        return {"tables": False, "hardware": self._hardware.fingerprint, "versions": _versions()}

    @property
    def programs(self) -> dict[str, str]:
        """Hashes of the tasks' programs, by title."""
        return {title: task.content_hash for title, task in self._tasks.items()}

    def attempt(self, task: str, agent: str, seed: int, budget: Budget) -> Attempt:
        """Tune on this machine; see `Arena`."""
        folder = self._out / RUNS / _folder(task) / _folder(agent) / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        one, resolved = self._contestants[agent], self._tasks[task]
        return _attempt(
            task, agent, seed, lambda: one.run(resolved, self._hardware, budget, seed, folder)
        )

    def finish(self, attempts: Sequence[Attempt], watcher: Watcher) -> None:
        """Time the finalists of every task that has new ones."""
        known = read_finals(self._out)
        for title, task in self._tasks.items():
            mine = [attempt for attempt in attempts if attempt.task == title]
            if is_current(known.get(title), mine):
                continue
            on_group = functools.partial(watcher.finals, title)
            keep_finals(self._out, confirm_all(task, self._hardware, mine, on_group))

    def judge(self, attempts: Sequence[Attempt]) -> tuple[list[Facts], list[Attempt]]:
        """By the fastest kernel that anybody found; see `Arena`."""
        finals = read_finals(self._out)
        facts = [
            Facts(
                title,
                finals[title].untuned_s,
                min(result.latency_s for result in finals[title].results),
                finals[title].slowdown,
            )
            for title in self._tasks
            if title in finals
        ]
        return facts, put_to_scale(attempts, finals)


def make_arena(
    agents: Sequence[str | AgentFactory], specs: Sequence[str], tables: str | None, out: Path
) -> RecordedArena | LiveArena:
    """The arena that a command line names.

    Args:
        agents: Names of contestants, or agents that were found already.
        specs: Suites and TASK strings, for a live race.
        tables: Recorded tables separated by commas, or `all`; None for a live race.
        out: The race's directory.

    Raises:
        InputError: Something named cannot be used, or both or neither of tasks and tables are.
        MemoryLimitError: A task does not fit in memory.
    """
    if bool(specs) == (tables is not None):
        raise InputError(
            "expected either --tables, for recorded ones, or --suite or --task, for a race on "
            f"this machine; got {'both' if specs else 'neither'}. Shipped tables: "
            f"{', '.join(shipped_tables())}"
        )
    if tables is None:
        tasks = [task for spec in specs for task in resolve_many(spec)]
        entered = [
            contestant(one) if isinstance(one, str) else AgentContestant(one) for one in agents
        ]
        return LiveArena(entered, tasks, detect(), out)
    found = [find_agent(one) if isinstance(one, str) else one for one in agents]
    wanted = list(shipped_tables()) if tables == "all" else tables.split(",")
    named = [name.strip() for name in wanted if name.strip()]
    read = read_tables(named, None)
    # By their own names, not those of their tasks: a table is a part of a task's space.
    titles = [Path(name).stem for name in named]
    return RecordedArena(found, dict(zip(titles, read.tables, strict=True)))


def _attempt(task: str, agent: str, seed: int, run: Callable[[], Entry]) -> Attempt:
    """Run a contestant; whatever it raises is its failure, but for what the machine does."""
    try:
        entry = run()
    except (MachineError, StoreError):
        raise
    except Exception as error:
        said = str(error) if isinstance(error, (AgentError, InputError)) else _in_words(error)
        return Attempt(task=task, agent=agent, seed=seed, failure=f"{agent}: {said}")
    return Attempt(
        task=task,
        agent=agent,
        seed=seed,
        curve=entry.curve,
        trials=entry.trials,
        elapsed_s=entry.elapsed_s,
        counts=entry.counts,
        finalists=tuple(str(point) for point in entry.finalists),
        failure=None if entry.fault is None else f"{agent}: {entry.fault}",
    )


def _in_words(error: Exception) -> str:
    return f"it raised {type(error).__name__}: {error}"


def _folder(name: str) -> str:
    """A name as one folder's; different names have different folders."""
    return quote(name, safe=":+=")


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("schedenv", "apache-tvm", "numpy")}
