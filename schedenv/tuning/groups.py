"""Kernels that were timed in turn, and the file that keeps them while a table is recorded."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from schedenv.errors import OutputDirError


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
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        path.write_bytes(b"".join(lines))
    try:
        return [msgspec.json.decode(line, type=Group) for line in lines]
    except msgspec.DecodeError as error:
        raise OutputDirError(
            f"{path} is damaged ({error}); delete it to time all kernels again, and repeat the "
            "command"
        ) from None


def append_group(path: Path, group: Group) -> None:
    """Keep a group; when this returns, it survives the death of the process."""
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(group) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputDirError(
            f"{path} cannot be written ({error.strerror}); make room and repeat the command with "
            "--resume"
        ) from None
