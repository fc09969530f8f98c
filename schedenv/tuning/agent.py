"""What an agent is: something that asks for points and is told results."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

from schedenv.errors import UnknownNameError
from schedenv.measure.result import Result
from schedenv.space import Point, SearchSpace

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


def make_agent(name: str, space: SearchSpace, seed: int) -> Agent:
    """Create an installed agent by name.

    Raises:
        UnknownNameError: No agent has that name.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            agent: Agent = point.load()(space, seed)
            return agent
    raise UnknownNameError("agent", name, agent_names())
