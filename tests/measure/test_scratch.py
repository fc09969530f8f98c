"""Scratch directories do not outlive their owners for long."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from schedenv.measure.scratch import make_scratch


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"schedenv-{dead.pid}-abc"
    others = [tmp_path / f"schedenv-{os.getpid()}-def", tmp_path / "schedenv-notes-2"]
    for path in (left, *others):
        path.mkdir()
        (path / "setup.json").touch()
    mine = make_scratch()
    assert not left.exists()
    assert all(path.exists() for path in others)
    assert mine.is_dir()
    assert mine.name.startswith(f"schedenv-{os.getpid()}-")
