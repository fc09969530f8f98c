"""What an agent is: something that asks for points and is told results."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from schedenv.errors import AgentError, ProgramFileError, SchedenvError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure.result import Result
from schedenv.space import Point, SearchSpace
from schedenv.tasks.description import DescribedTask
from schedenv.user_file import import_file

ENTRY_POINT_GROUP = "schedenv.agents"
FOLDER_ENTRY_POINT_GROUP = "schedenv.agents_from_folders"

_METHODS = ("ask", "tell", "state_dict")
_IN_FILE = re.compile(r"\.py:\w+$")


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

        The last time, when the trials end within them, only of the first ones. Before it is asked
        for any, an agent may be told the results of points that did well on a similar task.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What the agent has learned, as JSON-able values, for inspection and checkpoints."""
        ...


def agent_names() -> list[str]:
    """Names of all installed agents."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def make_agent(
    name: str, space: SearchSpace, seed: int, context: TuningContext | None = None
) -> Agent:
    """Create an agent by name; see `find_agent`, and `AgentFactory.make` for the arguments.

    Raises:
        UnknownNameError: No agent has that name.
        InputError: The name is that of a file or a checkpoint that cannot be used.
    """
    return find_agent(name).make(space, seed, context)


@dataclass(frozen=True)
class TuningContext:
    """What is known of a run beside the space: trained agents need it, others do not.

    Attributes:
        task: What is tuned.
        hardware: What it runs on.
        untuned_s: The untuned program's latency, seconds a call.
    """

    task: DescribedTask
    hardware: Hardware
    untuned_s: float


Create = Callable[[SearchSpace, int, TuningContext | None], Agent]


@dataclass(frozen=True)
class AgentFactory:
    """An agent that was found by name.

    Attributes:
        name: What results call it.
        create: Makes one of a space, a seed and perhaps a context.
    """

    name: str
    create: Create

    def make(self, space: SearchSpace, seed: int, context: TuningContext | None = None) -> Agent:
        """Create the agent.

        Args:
            space: The points it may ask for.
            seed: Of everything random.
            context: What a trained agent needs to know beside the space.

        Raises:
            InputError: The agent cannot be used here.
            AgentError: Its constructor raised.
        """
        try:
            return self.create(space, seed, context)
        except SchedenvError:
            raise
        except Exception as error:
            raise AgentError(
                f"the agent {self.name} raised {type(error).__name__} when it was created: {error}"
            ) from error


def find_agent(name: str) -> AgentFactory:
    """Find an agent by name, without creating one.

    Args:
        name: An installed agent; a class in a Python file, `path/to/file.py:ClassName`, which is
            imported; a checkpoint of `schedenv train`, by its folder; or any of these under a name
            of its own, `NAME=...`.

    Raises:
        UnknownNameError: No agent has that name.
        ProgramFileError: The file cannot be imported, or does not define the class.
        CheckpointError: The checkpoint cannot be used.
    """
    own_name, equals, rest = name.partition("=")
    if equals and re.fullmatch(r"\w[\w.+-]*", own_name):
        return AgentFactory(own_name, find_agent(rest).create)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return AgentFactory(name, _ignoring_the_task(point.load()))
    if _IN_FILE.search(name):
        return _from_file(name)
    if Path(name).is_dir() or os.sep in name:
        return AgentFactory(Path(name).name, _from_folder(Path(name)))
    raise UnknownNameError(
        "agent", name, agent_names(), "(or name FILE.py:CLASS, or the folder of a checkpoint)"
    )


def _from_folder(folder: Path) -> Create:
    # By entry point, for checkpoints belong to training, which is built upon tuning.
    (point,) = entry_points(group=FOLDER_ENTRY_POINT_GROUP, name="checkpoint")
    load: Callable[[Path], Create] = point.load()
    return load(folder)


def _from_file(name: str) -> AgentFactory:
    path_text, _, class_name = name.rpartition(":")
    path = Path(path_text).expanduser()
    module = import_file(name, path)
    found = getattr(module, class_name, None)
    if isinstance(found, type) and all(hasattr(found, method) for method in _METHODS):
        return AgentFactory(class_name, _ignoring_the_task(found))
    agents = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and all(hasattr(value, method) for method in _METHODS)
    ]
    raise ProgramFileError(
        f"{name}: expected a class with the methods {', '.join(_METHODS)}; the file "
        + (f"has {', '.join(agents)}" if agents else "has none")
        + ". See docs/agents.md"
    )


def _ignoring_the_task(cls: Callable[[SearchSpace, int], Agent]) -> Create:
    return lambda space, seed, _context: cls(space, seed)
