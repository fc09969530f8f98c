"""Hand a run's best schedule to other tools."""

from __future__ import annotations

from pathlib import Path

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import ForeignRecordsError, InputError, OutputDirError
from schedenv.space import Point, Space
from schedenv.tasks import Task


def export_metaschedule(
    task: Task, point: Point, latency_s: float, fingerprint: str, directory: Path
) -> None:
    """Write a MetaSchedule database with one record: the best schedule and its confirmed time.

    Plain TVM compiles with it: `relax.transform.MetaScheduleApplyDatabase`, or `query_schedule`
    of the database.

    Args:
        task: What was tuned.
        point: The winner.
        latency_s: Its confirmed latency.
        fingerprint: Of the hardware that it was tuned on.
        directory: Where `database_workload.json` and `database_tuning_record.json` go.

    Raises:
        ForeignRecordsError: The run was made on other hardware; MetaSchedule's database does not
            know the difference, so it must not get there.
        OutputDirError: The directory holds a database already, or cannot be written.
    """
    hardware = hw.detect()
    if fingerprint != hardware.fingerprint:
        raise ForeignRecordsError(
            f"the run was made on {fingerprint}, this machine is {hardware.fingerprint}; "
            "export on the machine that the schedule was tuned on"
        )
    if (directory / "database_tuning_record.json").exists():
        raise OutputDirError(f"--to {directory} already holds a database; choose another --to")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputDirError(f"--to {directory} cannot be created ({error.strerror})") from None
    space = Space(task.mod, hardware)
    trace = space.apply(point).trace
    # The module as it came, not as the generator normalised it: plain TVM looks it up by structure.
    record = (task.mod, trace, latency_s)
    tvm_adapter.write_database(str(directory), [record], hw.target(hardware))


FORMATS = {"metaschedule": export_metaschedule}


def check_format(name: str) -> None:
    """Refuse an unknown export format.

    Raises:
        InputError: No such format.
    """
    if name not in FORMATS:
        raise InputError(f"expected --format {' or '.join(FORMATS)}, got {name!r}")
