"""A run's directory: `records.sqlite`, `best.json`, `curve.csv`, `run.json`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schedenv.errors import OutputDirError

RECORDS = "records.sqlite"
BEST = "best.json"
CURVE = "curve.csv"
RUN = "run.json"


def open_run_dir(path: Path, *, resume: bool) -> Path:
    """Create the directory of a new run, or open that of a run to be resumed.

    Raises:
        OutputDirError: It holds a run and `resume` is false; it holds none and `resume` is true;
            it is a file, or cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise OutputDirError(f"--out {path} is a file; expected a directory, or a new name")
    holds_run = (path / RUN).exists() or (path / RECORDS).exists()
    if holds_run and not resume:
        raise OutputDirError(
            f"--out {path} already holds a run; continue it with --resume, or choose another --out"
        )
    if resume and not holds_run:
        raise OutputDirError(
            f"--out {path} holds no run to resume; leave --resume out to start one"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputDirError(
            f"--out {path} cannot be written ({error.strerror}); choose a directory that you own"
        ) from None
    return path


def check_same_run(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse to resume a run of another task, agent, seed or store.

    Returns:
        The run as it was described when it was started.

    Raises:
        OutputDirError: They differ; the message has both values.
    """
    earlier = read_json(path / RUN)
    for key in ("task", "task_hash", "agent", "seed", "store"):
        if earlier.get(key) != run[key]:
            raise OutputDirError(
                f"--out {path} holds a run of {key} {earlier.get(key)!r}, not {run[key]!r}; "
                "repeat the command that started it with --resume, or choose another --out"
            )
    return earlier


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(content)
    os.replace(partial, path)  # noqa: PTH105 - Path.replace says the same less plainly


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run directory.

    Raises:
        OutputDirError: It is missing or not JSON.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise OutputDirError(
            f"{path} does not exist; expected the --out directory of a finished schedenv tune"
        ) from None
    except (OSError, ValueError) as error:
        raise OutputDirError(f"{path} cannot be read: {error}") from None
    return content


def write_curve(path: Path, curve: Sequence[tuple[float, int, float]]) -> None:
    """Write the improvements as seconds, trials, best_us."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "trials", "best_us"])
        for seconds, trials, best_s in curve:
            writer.writerow([f"{seconds:.3f}", trials, f"{best_s * 1e6:.3f}"])


def git_revision() -> str | None:
    """The revision of the source that runs, if it is a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
