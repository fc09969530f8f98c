"""Merging stores into one, and pruning one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from schedenv.errors import InputError
from schedenv.records.archive import Archive, Selection, Unreadable
from schedenv.records.record import Record, row_of

_BATCH = 1000


@dataclass
class Merged:
    """What became of one store's records in a merge.

    Attributes:
        name: The store.
        added: Records copied.
        duplicates: Records that the target had already, from this store or another.
        unreadable: Rows that hold no record; they stay where they are.
        hardware: Records copied, by fingerprint.
    """

    name: str
    added: int = 0
    duplicates: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)
    hardware: dict[str, int] = field(default_factory=dict)


def merge(sources: Sequence[Archive], target: Archive) -> list[Merged]:
    """Copy the records of several stores into one, copies of one measurement once.

    Two records are copies if their task, hardware, space version, canonical form, status and raw
    samples are the same. Hardware is kept apart by the fingerprint that every record has. A merge
    that was interrupted is finished by repeating it.

    Raises:
        InputError: The target is one of the sources.
        StoreError: A store cannot be read, or the target cannot be written.
    """
    if any(source.name == target.name for source in sources):
        raise InputError(f"{target.name} is both a source and the target; choose another --to")
    known = target.digests()
    return [_merge_one(source, target, known) for source in sources]


def _merge_one(source: Archive, target: Archive, known: set[str]) -> Merged:
    reading, runs = source.read(), source.runs()
    report = Merged(source.name, unreadable=reading.unreadable)
    hardware: defaultdict[str, int] = defaultdict(int)
    rows = []
    for record in reading.records:
        row = row_of(record)
        if row["digest"] in known:
            report.duplicates += 1
            continue
        known.add(row["digest"])
        hardware[record.fingerprint] += 1
        rows.append(row)
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        wanted = {row["run_id"] for row in batch}
        target.add(batch, [run for run in runs.values() if run.id in wanted])
    report.added, report.hardware = len(rows), dict(hardware)
    return report


def prunable(archive: Archive, selection: Selection, keep_best: int | None) -> list[Record]:
    """The records that a pruning would delete.

    Args:
        archive: The store.
        selection: Which records may go.
        keep_best: So many of the fastest of each task and hardware stay whatever the selection
            says; None protects none.

    Raises:
        InputError: Nothing says which records may go, or `keep_best` is negative.
        StoreError: The store cannot be read.
    """
    if keep_best is not None and keep_best < 0:
        raise InputError(f"expected --keep-best of 0 or more, got {keep_best}")
    if selection == Selection() and keep_best is None:
        raise InputError(
            "nothing says what to delete; give --status, --task, --agent, --hardware, "
            "--older-than or --keep-best"
        )
    kept: set[int] = set()
    if keep_best:
        timed = [record for record in archive.read().records if record.result.estimate_s]
        groups: defaultdict[tuple[str, str, int], list[Record]] = defaultdict(list)
        for record in sorted(timed, key=lambda record: record.result.estimate_s or 0.0):
            groups[record.task_hash, record.fingerprint, record.space_version].append(record)
        kept = {record.id for group in groups.values() for record in group[:keep_best]}
    return [record for record in archive.read(selection).records if record.id not in kept]
