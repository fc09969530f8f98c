"""What an agent is: something that asks for points and is told results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from schedenv.errors import UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure.result import Result
from schedenv.space import Point, SearchSpace

if TYPE_CHECKING:
    from schedenv.envs.problems import DescribedTask

ENTRY_POINT_GROUP = "schedenv.agents"


class Agent(Protocol):
    """Proposes points and learns from their results.

    An agent never times anything and never sees a clock. It is created with the space and a seed;
    given the same results it must ask for the same points, which is what makes a run resumable.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None: ...

    def ask(self, count: int) -> list[Point]:
        """Up to `count` legal points to be measured next; none at all ends the run."""
        ...

    def tell(self, results: Sequence[Result]) -> None:
        """The results of the points last asked for, in the same order.

        The last time, when the trials end within them, only of the first ones.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the agent has learned, as JSON-able values, for inspection and checkpoints."""
        ...


def agent_names() -> list[str]:
    """Names of all installed agents."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def make_agent(
    name: str,
    space: SearchSpace,
    seed: int,
    task: DescribedTask | None = None,
    hardware: Hardware | None = None,
) -> Agent:
    """Create an agent by name; see `find_agent`, and `AgentFactory.make` for the arguments.

    Raises:
        UnknownNameError: No agent has that name.
        InputError: The name is that of a file or a checkpoint that cannot be used.
    """
    return find_agent(name).make(space, seed, task, hardware)


@dataclass(frozen=True)
class AgentFactory:
    """An agent that was found by name.

    Attributes:
        name: What results call it.
        create: Makes one.
    """

    name: str
    create: Callable[[SearchSpace, int, DescribedTask | None, Hardware | None], Agent]

    def make(
        self,
        space: SearchSpace,
        seed: int,
        task: DescribedTask | None = None,
        hardware: Hardware | None = None,
    ) -> Agent:
        """Create the agent.

        Args:
            space: The points it may ask for.
            seed: Of everything random.
            task: What is tuned; a trained agent needs it.
            hardware: What it runs on; a trained agent needs it.
        """
        return self.create(space, seed, task, hardware)


def find_agent(name: str) -> AgentFactory:
    """Find an agent by name, without creating one.

    Args:
        name: An installed agent.

    Raises:
        UnknownNameError: No agent has that name.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return AgentFactory(name, _ignoring_the_task(point.load()))
    raise UnknownNameError("agent", name, agent_names())


def _ignoring_the_task(
    cls: Callable[[SearchSpace, int], Agent],
) -> Callable[[SearchSpace, int, DescribedTask | None, Hardware | None], Agent]:
    return lambda space, seed, _task, _hardware: cls(space, seed)
