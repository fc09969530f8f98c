"""MetaSchedule's databases: writing and querying them, and their traces as JSON.

Next to `schedenv.tvm_adapter`, the only module that touches TVM internals that have moved before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schedenv import tvm_adapter
from schedenv.errors import ConstraintError

if TYPE_CHECKING:
    from tvm import IRModule
    from tvm.target import Target


def write_database(
    directory: str,
    records: Sequence[tuple[IRModule, Any, float]],
    target: Target,
) -> None:
    """Write (module, applied trace, seconds) triples as a MetaSchedule JSON database."""
    meta_schedule = tvm_adapter.meta_schedule_package()
    database = meta_schedule.database.JSONDatabase(work_dir=directory)
    for mod, trace, seconds in records:
        workload = database.commit_workload(mod)
        args_info = meta_schedule.arg_info.ArgInfo.from_entry_func(mod, remove_preproc=True)
        record = meta_schedule.database.TuningRecord(trace, workload, [seconds], target, args_info)
        database.commit_tuning_record(record)


def read_database(directory: str) -> Any:
    """Open a MetaSchedule JSON database that exists."""
    return tvm_adapter.meta_schedule_package().database.JSONDatabase(
        work_dir=directory, allow_missing=False
    )


def apply_database(mod: IRModule, directory: str, target: Target) -> IRModule | None:
    """Schedule `mod` as plain TVM would from a database; None if it holds no record of it."""
    schedule = read_database(directory).query_schedule(mod, target, "main")
    return None if schedule is None else schedule.mod


def apply_to_network(graph: IRModule, directory: str, target: Target) -> IRModule:
    """Schedule each kernel of a fused network that the database has a record of, as plain TVM.

    Args:
        graph: What `schedenv.tvm_relax.fuse` returned.
        directory: The database's.
        target: What it was tuned for.
    """
    import tvm
    from tvm.relax import transform

    with target, tvm.transform.PassContext(opt_level=3), read_database(directory):
        return transform.MetaScheduleApplyDatabase(enable_warning=True)(graph)


def trace_json(instructions: Sequence[Any]) -> list[Any]:
    """A trace's instructions as a database has them: [kind, inputs, attributes, outputs] each.

    Random variables are named in the order in which they appear, so equal traces are equal here.
    """
    from tvm.s_tir import Trace

    plain: list[Any] = _plain(Trace(list(instructions), {}).as_json()[0])
    return plain


def workload_from_json(content: Sequence[Any]) -> IRModule:
    """The module of a line of `database_workload.json`."""
    return tvm_adapter.meta_schedule_package().database.Workload.from_json(list(content)).mod


def apply_trace_json(mod: IRModule, trace: Sequence[Any]) -> tuple[IRModule, list[Any]]:
    """Apply a database's trace, postprocessing included, as plain TVM would.

    Returns:
        The scheduled module, and the trace with the decisions that TVM really took.

    Raises:
        ConstraintError: TVM refuses it. What is no trace at all may kill the process instead.
    """
    from tvm.s_tir import Schedule, Trace

    schedule = Schedule(mod, seed=1, debug_mask="none", error_render_level="none")
    try:
        Trace.apply_json_to_schedule(list(trace), schedule)
    except Exception as error:
        raise ConstraintError(
            f"TVM does not apply the trace: {tvm_adapter.first_line(error)}"
        ) from error
    return schedule.mod, _plain(schedule.trace.as_json())


def _plain(value: Any) -> Any:
    """TVM's containers, numbers and strings as Python's."""
    from tvm.tirx import FloatImm, IntImm

    if isinstance(value, IntImm | FloatImm):
        value = value.value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return [_plain(item) for item in value]
