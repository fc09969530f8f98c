"""What the commands on record stores share: finding a store, describing a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from schedenv import hardware as hw
from schedenv.errors import InputError, SchedenvError
from schedenv.hardware import Hardware
from schedenv.records import Archive, Record, Run
from schedenv.records.database import is_url
from schedenv.records.printable import printable
from schedenv.space import SPACE_VERSION, Space
from schedenv.tasks import resolve
from schedenv.tasks.programs import is_program_spec
from schedenv.tuning import run_dir


def existing(text: str) -> Archive:
    """Open a store that exists: a file, a run directory, or a URL.

    Raises:
        InputError: There is none.
        StoreError: It cannot be opened.
    """
    if is_url(text):
        return Archive(text)
    path = Path(text)
    if path.is_dir():
        run = run_dir.read_json(path / run_dir.RUN) if (path / run_dir.RUN).exists() else {}
        elsewhere = run.get("store")
        if isinstance(elsewhere, str):
            return existing(elsewhere)
        path = path / run_dir.RECORDS
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; expected a record store, a run directory or a URL"
        )
    return Archive(path)


def new_or_existing(text: str) -> Archive:
    """Open a store, created if it does not exist.

    Raises:
        StoreError: It cannot be opened.
    """
    return Archive(text if is_url(text) else Path(text))


def describe(record: Record, run: Run | None) -> dict[str, Any]:
    """Everything about a record, JSON-able; times in seconds."""
    return {
        "id": record.id,
        "task": record.task_name,
        "task_hash": record.task_hash,
        "hardware": record.fingerprint,
        "space_version": record.space_version,
        "canonical": record.canonical,
        "stored": record.created_at,
        "elapsed_s": record.elapsed_s,
        "run": record.run_id,
        "agent": run.agent if run else None,
        "seed": run.seed if run else None,
        "host": run.host if run else None,
        "conditions": dict(record.conditions),
        **msgspec.to_builtins({**msgspec.structs.asdict(record.result), "point": None}),
        "point": str(record.result.point),
    }


def schedule_text(record: Record, run: Run | None, task: str | None) -> str:
    """The schedule that a record's point stands for, or why it cannot be shown.

    Args:
        record: The record.
        run: Its run, which knows the hardware if it is not this machine's.
        task: The TASK that the user says it is of; None goes by the stored name. A stored name
            that is a file is never followed: whoever wrote the store would run code here.
    """
    try:
        return _space_of(record, run, task).describe(record.result.point)
    except SchedenvError as error:
        return f"no schedule shown: {printable(str(error), limit=200)}"


def _space_of(record: Record, run: Run | None, task: str | None) -> Space:
    """The space that a record's point is of.

    Raises:
        SchedenvError: It cannot be made any more; the message says why.
    """
    name = task if task is not None else record.task_name
    if task is None and is_program_spec(name):
        raise InputError("the task is a program of a file; name it with --task FILE:NAME")
    hardware = _hardware_of(record, run)
    if hardware is None:
        raise InputError("the record is of other hardware, which its store does not describe")
    if record.space_version != SPACE_VERSION:
        raise InputError(f"the point is of space version {record.space_version}")
    resolved = resolve(name)
    if resolved.content_hash != record.task_hash:
        raise InputError(f"{name} is another program now")
    space = Space(resolved.mod, hardware)
    illegal = space.explain_illegal(record.result.point)
    if illegal is not None:
        raise InputError(f"the point is not of the task's space ({illegal})")
    return space


def _hardware_of(record: Record, run: Run | None) -> Hardware | None:
    here = hw.detect()
    if record.fingerprint == here.fingerprint:
        return here
    try:
        there = msgspec.convert((run.details if run else {}).get("hardware"), Hardware)
    except msgspec.ValidationError:
        return None
    return there if there.fingerprint == record.fingerprint else None
