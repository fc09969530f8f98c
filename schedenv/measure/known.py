"""What has been measured before: equal programs, and programs that lower to equal code."""

from __future__ import annotations

import msgspec

from schedenv.measure.result import Phases, Result
from schedenv.space.point import Point


class KnownResults:
    """Results by program and by code, so that nothing is compiled or timed twice."""

    def __init__(self) -> None:
        self._by_program: dict[str, Result] = {}
        self._by_code: dict[str, Result] = {}

    def add(self, result: Result) -> None:
        """Remember a result."""
        if result.program is not None:
            self._by_program[result.program] = result
        if result.code is not None:
            self._by_code[result.code] = result

    def find(self, program: str | None, code: str | None) -> Result | None:
        """The result of an equal program or of equal code; None if neither is known."""
        found = self._by_program.get(program) if program is not None else None
        if found is None and code is not None:
            found = self._by_code.get(code)
        return found


def repeat(known: Result, point: Point, program: str | None, phases: Phases) -> Result:
    """The answer for a point whose code was measured before.

    Args:
        known: The result of the equal code.
        point: The point asked for.
        program: Its own program.
        phases: What finding out took.
    """
    return msgspec.structs.replace(
        known, point=point, program=program, phases=phases, repeated=True
    )
