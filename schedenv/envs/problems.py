"""The tasks of an environment, each with its points, its machine and its reward source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from schedenv import hardware as hw
from schedenv.envs import rewards
from schedenv.envs.arguments import NamedTables, check_source, read_tables, task_specs
from schedenv.errors import UnknownNameError
from schedenv.hardware import Hardware
from schedenv.space import SearchSpace, Space
from schedenv.tasks import DescribedTask, resolve


@dataclass
class Problem:
    """One task that an environment can be reset to.

    Attributes:
        name: What `reset(options={"task": ...})` calls it.
        task: The task.
        space: Its points, or those that were recorded.
        hardware: The machine that the rewards are of.
        source: The reward source.
        is_measured: Whether rewards are measured anew, so that they differ from run to run.
        is_absolute: Whether the source knows times; a cost model knows speed-ups only.
        optimum_s: The known optimum, seconds a call; None if it is not known.
    """

    name: str
    task: DescribedTask
    space: SearchSpace
    hardware: Hardware
    source: rewards.RewardSource
    is_measured: bool = False
    is_absolute: bool = True
    optimum_s: float | None = None

    @cached_property
    def peak_flops_per_s(self) -> float | None:
        """The machine's measured peak; None where it was not measured with the rewards."""
        if not isinstance(self.source, rewards.MeasuredReward):
            return None
        from schedenv.calibration import peaks

        return peaks(self.hardware).flops_per_s


class Problems:
    """All problems of an environment and of its forks; each is opened when it is first needed.

    Args:
        names: By which they are asked for, the first one being the default.
        aliases: Other names, with the position that they stand for.
        make: Opens one, by position.
    """

    def __init__(
        self, names: Sequence[str], aliases: dict[str, int], make: Callable[[int], Problem]
    ) -> None:
        self.names = tuple(names)
        self._positions = {**aliases, **{name: index for index, name in enumerate(names)}}
        self._make = make
        self._open: dict[int, Problem] = {}
        self._holders = 1

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: object) -> int:
        """The position of a name.

        Raises:
            UnknownNameError: It is none of the environment's tasks.
        """
        if not isinstance(name, str) or name not in self._positions:
            raise UnknownNameError("task of this environment", str(name), self.names)
        return self._positions[name]

    def get(self, index: int) -> Problem:
        """Open a problem; workers that measure another one are stopped."""
        if index not in self._open:
            self._open[index] = self._make(index)
        for other, problem in self._open.items():
            if other != index and problem.is_measured:
                problem.source.close()
        return self._open[index]

    def share(self) -> Problems:
        """The same problems for one more holder."""
        self._holders += 1
        return self

    def release(self) -> None:
        """One holder less; the last one closes the sources."""
        self._holders -= 1
        if self._holders == 0:
            for problem in self._open.values():
                problem.source.close()


def open_problems(
    task: str | Sequence[str] | None,
    reward: str,
    table: str | Sequence[str] | None,
    model: str | None,
    check: Callable[[SearchSpace, str], None],
) -> Problems:
    """Find the problems that an environment's arguments name.

    Args:
        task: A TASK string, the name of a suite, or several of both; None with tables.
        reward: Name of the reward source.
        table: For `recorded`: files or names of shipped tables.
        model: For `predicted`: the folder of a saved cost model.
        check: Refuses a space that the environment cannot hold; called with the task's name.

    Raises:
        InputError: The arguments cannot be used, or not together.
    """
    check_source(reward, table, model, rewards.known_rewards())
    if reward == "recorded":
        assert table is not None
        return _recorded(read_tables(table, task), check)
    specs = task_specs(task, reward)
    hardware = hw.detect()
    predictor = None if model is None else rewards.load_predictor(model)

    def make(index: int) -> Problem:
        resolved = resolve(specs[index])
        space = Space(resolved.mod, hardware)
        check(space, resolved.name)
        if predictor is None:
            source = rewards.make_source(reward, resolved, hardware)
            return Problem(specs[index], resolved, space, hardware, source, is_measured=True)
        predicted = rewards.PredictedReward(predictor, str(model), resolved, space)
        return Problem(specs[index], resolved, space, hardware, predicted, is_absolute=False)

    return Problems(specs, {}, make)


def _recorded(named: NamedTables, check: Callable[[SearchSpace, str], None]) -> Problems:
    """One problem a table."""

    def make(index: int) -> Problem:
        table = named.tables[index]
        info, space = table.info, table.space()
        check(space, info.task.name)
        return Problem(
            named.titles[index],
            info.task,
            space,
            info.hardware,
            rewards.RecordedReward(table),
            optimum_s=table.optimum_s,
        )

    return Problems(named.titles, named.aliases, make)
