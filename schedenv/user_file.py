"""Running a user's own Python file, with errors that say where in it they come from."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from schedenv import tvm_adapter
from schedenv.errors import ProgramFileError

_module_numbers = itertools.count()


def check_file(spec: str, path: Path) -> None:
    """Refuse a file that is not there.

    Raises:
        ProgramFileError: It is not.
    """
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ProgramFileError(
            f"{spec}: there is no file {str(path)!r}{where}; check the path before the colon"
        )


def import_file(spec: str, path: Path) -> ModuleType:
    """Import a file; its code runs.

    Args:
        spec: What the user wrote, for messages.
        path: The file.

    Raises:
        ProgramFileError: It is not there, or its code fails.
    """
    check_file(spec, path)
    # A fresh name each time: an edited file is read again, and no user's module is replaced.
    module_name = f"schedenv_user_{next(_module_numbers)}_{path.stem}"
    file_spec = importlib.util.spec_from_file_location(module_name, path.resolve())
    if file_spec is None or file_spec.loader is None:
        raise ProgramFileError(f"{spec}: Python cannot import the file {str(path)!r}")
    module = importlib.util.module_from_spec(file_spec)
    # TVMScript, dataclasses and inspect find a module through sys.modules.
    sys.modules[module_name] = module
    try:
        with running_user_code(spec, path, "importing the file"):
            file_spec.loader.exec_module(module)
    except ProgramFileError:
        del sys.modules[module_name]
        raise
    return module


@contextmanager
def running_user_code(spec: str, path: Path, action: str) -> Iterator[None]:
    """Let the user's code import its neighbours; turn its exceptions into `ProgramFileError`."""
    folder = str(path.resolve().parent)
    # Appended, so that a neighbour's name never hides an installed package.
    sys.path.append(folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ProgramFileError(
            f"{spec}: {action} failed{_error_line(error, path)}: "
            f"{type(error).__name__}: {tvm_adapter.first_line(error)}"
        ) from error
    finally:
        sys.path.remove(folder)


def _error_line(error: BaseException, path: Path) -> str:
    """` at line N`, the last line of the user's file that took part; empty if none did."""
    file = str(path.resolve())
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" at line {error.lineno}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    return f" at line {lines[-1]}" if lines else ""
