"""A measurer's scratch directory, and what measurers that were killed have left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import psutil

_NAME = re.compile(r"schedenv-(\d+)-")


def make_scratch() -> Path:
    """Create a directory named after this process, and remove what dead processes have left."""
    for path in Path(tempfile.gettempdir()).glob("schedenv-*-*/"):
        owner = _NAME.match(path.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            # Another user's, or one that another process is removing as well.
            with contextlib.suppress(OSError):
                shutil.rmtree(path)
    return Path(tempfile.mkdtemp(prefix=f"schedenv-{os.getpid()}-"))
