"""What is known of a task without its program."""

from __future__ import annotations

from typing import Protocol


class DescribedTask(Protocol):
    """What agents and environments are told of a task; `Task` has it, so has a recorded table."""

    @property
    def spec(self) -> str:
        """The TASK string, which `schedenv.tasks.resolve` reads."""
        ...

    @property
    def name(self) -> str:
        """Name for people."""
        ...

    @property
    def family(self) -> str:
        """The operator's name; `program` for a user's own program."""
        ...

    @property
    def content_hash(self) -> str:
        """Of the program."""
        ...

    @property
    def flops(self) -> float:
        """Floating-point operations of one run; 0.0 if unknown."""
        ...

    @property
    def bytes(self) -> int:
        """Compulsory memory traffic of one run."""
        ...
