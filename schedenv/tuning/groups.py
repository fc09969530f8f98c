"""Kernels that were timed in turn, and the file that keeps them while a table is recorded."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schedenv.tuning.lines import append_line, read_lines


class Group(msgspec.Struct, frozen=True):
    """Kernels that were timed in turn.

    Attributes:
        turn: 0 for the first pass over all candidates, and so on; the finalists' turns come last.
        samples_s: For each point, by its text form, its samples as the clock gave them, one a
            round; fewer of kernels too slow for every round.
    """

    turn: int
    samples_s: dict[str, tuple[float, ...]]


def read_groups(path: Path) -> list[Group]:
    """The groups that a file keeps; a last line that was cut short is dropped from the file."""
    return read_lines(path, Group, "time all kernels again")


def append_group(path: Path, group: Group) -> None:
    """Keep a group; when this returns, it survives the death of the process."""
    append_line(path, group)
