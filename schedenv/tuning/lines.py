"""Files that grow by one JSON line at a time and survive the death of their writer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from schedenv.errors import OutputDirError

T = TypeVar("T")


def read_lines(path: Path, kind: type[T], remedy: str) -> list[T]:
    """What a file holds; a last line that was cut short is dropped from the file.

    Args:
        path: The file; one that does not exist is empty.
        kind: The type of every line.
        remedy: What deleting the file means, for the message; "delete it to ...".

    Raises:
        OutputDirError: It is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
        path.write_bytes(b"".join(lines))
    try:
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OutputDirError(
            f"{path} is damaged ({error}); delete it to {remedy}, and repeat the command"
        ) from None


def append_line(path: Path, line: msgspec.Struct) -> None:
    """Add a line; when this returns, it survives the death of the process.

    Raises:
        OutputDirError: The file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputDirError(
            f"{path} cannot be written ({error.strerror}); make room and repeat the command with "
            "--resume"
        ) from None
