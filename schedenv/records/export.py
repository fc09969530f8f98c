"""Hand a run's best schedules to plain TVM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from schedenv import hardware as hw
from schedenv import tvm_database
from schedenv.errors import ForeignRecordsError, InputError, OutputDirError
from schedenv.records.printable import printable
from schedenv.space import Point, Space
from schedenv.tasks import Task

FORMATS = ("metaschedule", "t4", "parquet")


def export_metaschedule(
    task: Task,
    candidates: Sequence[tuple[Point, float]],
    fingerprint: str,
    directory: Path,
) -> int:
    """Write a MetaSchedule database of schedules and their times.

    Plain TVM compiles with the fastest of them: `relax.transform.MetaScheduleApplyDatabase`, or
    `query_schedule` of the database. So the first candidate is to be the one whose time was
    confirmed, and others are left out if only a lucky measurement makes them look faster.

    Args:
        task: What was tuned.
        candidates: Points with seconds a call, the winner first.
        fingerprint: Of the hardware that it was tuned on.
        directory: Where `database_workload.json` and `database_tuning_record.json` go.

    Returns:
        How many candidates were written.

    Raises:
        ForeignRecordsError: The run was made on other hardware; MetaSchedule's database does not
            know the difference, so it must not get there.
        OutputDirError: The directory holds a database already, or cannot be written.
    """
    hardware = hw.detect()
    if fingerprint != hardware.fingerprint:
        raise ForeignRecordsError(
            f"the run was made on {printable(fingerprint, limit=128)}, this machine is "
            f"{hardware.fingerprint}; export on the machine that the schedule was tuned on"
        )
    if (directory / "database_tuning_record.json").exists():
        raise OutputDirError(f"--to {directory} already holds a database; choose another --to")
    make_directory(directory)
    space = Space(task.mod, hardware)
    (winner, winner_s), *others = candidates
    kept = [(winner, winner_s), *((point, time_s) for point, time_s in others if time_s > winner_s)]
    # The module as it came, not as the generator normalised it: plain TVM looks it up by structure.
    records = [(task.mod, space.apply(point).trace, time_s) for point, time_s in kept]
    tvm_database.write_database(str(directory), records, hw.target(hardware))
    return len(kept)


def make_directory(directory: Path) -> None:
    """Make the directory that an export goes to.

    Raises:
        OutputDirError: It cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputDirError(f"--to {directory} cannot be created ({error.strerror})") from None


def new_file(directory: Path, name: str) -> Path:
    """A file that an export writes, in a directory made for it if need be.

    Raises:
        OutputDirError: It is there already, or the directory cannot be made.
    """
    if (directory / name).exists():
        raise OutputDirError(f"--to {directory} already holds {name}; choose another --to")
    make_directory(directory)
    return directory / name


def check_format(name: str) -> None:
    """Refuse an unknown export format.

    Raises:
        InputError: No such format.
    """
    if name not in FORMATS:
        raise InputError(
            f"expected --format {' or '.join(FORMATS)}, got '{printable(name, limit=40)}'"
        )
