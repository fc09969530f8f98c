"""Torch programs as `torch.export.save` writes them (`.pt2`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from schedenv import tvm_adapter
from schedenv.errors import MissingExtraError, MissingShapesError, NetworkFileError

SUFFIX = ".pt2"


def is_exported(path: Path) -> bool:
    """Whether a file is a torch program, by its name."""
    return path.suffix == SUFFIX


def check_trusted(path: Path, *, trusted: bool) -> None:
    """Refuse a torch program of unknown origin: torch unpickles parts of it.

    Raises:
        NetworkFileError: The file is a torch program, and nobody said that it can be trusted.
    """
    if is_exported(path) and not trusted:
        raise NetworkFileError(
            f"reading {path} can run code that is hidden in it, as with every file that "
            "torch.export.load reads; if you know where it comes from, say so: "
            f"schedenv tune {path} --trust-file"
        )


def load_exported(path: Path) -> Any:
    """Read a torch program. This can run code; see `check_trusted`.

    Returns:
        A `torch.export.ExportedProgram` whose inputs have static shapes.

    Raises:
        NetworkFileError: The file cannot be read.
        MissingShapesError: Extents of its inputs are left open.
        MissingExtraError: The package torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "models", "reading torch programs") from None
    # It raises whatever its parts raise: of zip files, JSON, its own schema.
    try:
        program = torch.export.load(str(path))
    except Exception as error:
        raise NetworkFileError(
            f"{path} cannot be read as a torch program ({type(error).__name__}: "
            f"{tvm_adapter.first_line(error)[:200]}); write it with torch.export.save of torch "
            f"{torch.__version__.partition('+')[0]}"
        ) from None
    if program.range_constraints:
        raise MissingShapesError(
            f"{path} leaves extents of its inputs open "
            f"({', '.join(map(str, program.range_constraints))}); export it again without "
            "dynamic_shapes"
        )
    return program
