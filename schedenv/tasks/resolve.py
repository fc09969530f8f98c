"""From a TASK string to tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schedenv.errors import InputError, UnknownNameError
from schedenv.tasks.families import OPERATORS
from schedenv.tasks.operators import DTYPES, Operator
from schedenv.tasks.programs import is_program_spec, program_task
from schedenv.tasks.suites import SUITES, member_spec, members
from schedenv.tasks.task import Task

if TYPE_CHECKING:
    from schedenv.tasks.networks.network import Network

NETWORK = "network:"
"""What the TASK string of a network, or of one of its kernels, begins with."""

NETWORK_FILES = (".onnx", ".pt2")
"""How the files of networks end: ONNX, and what `torch.export.save` writes."""

_FORMS = "'gmm', 'gmm:1x512x512x512', 'gmm:1x512x512x512@float64', 'ansor/gmm-2', 'program.py:main'"


def resolve(spec: str) -> Task:
    """Build the task that a TASK string names.

    Args:
        spec: An operator (`gmm`, its default shape), an operator with a shape and perhaps a dtype
            (`gmm:1x512x512x512@float64`), a member of a suite (`ansor/gmm-2`), a kernel of a
            network (`network:model.onnx/max_pool2d`) or a function in a Python file
            (`program.py:main`; the file is imported).

    Raises:
        UnknownNameError: No operator, suite or member has this name.
        ShapeError: The shape is malformed, contradicts itself or is absurd.
        MemoryLimitError: The task does not fit in memory.
        ProgramFileError: The file or its function cannot be used.
        InputError: Another fault, such as an unsupported dtype or a whole suite.
    """
    spec = spec.strip()
    if not spec:
        raise InputError(f"empty task; expected one of {_FORMS}")
    if is_program_spec(spec):
        return program_task(spec)
    if spec.endswith(NETWORK_FILES):
        raise InputError(
            f"{spec!r} is a network, and one task is expected; tune it whole with schedenv tune, "
            f"or name one of its kernels, such as 'network:{spec.removeprefix(NETWORK)}/NAME'; "
            f"their names: schedenv tasks {NETWORK}{spec.removeprefix(NETWORK)}"
        )
    if spec.startswith(NETWORK):
        folder, _, kernel = spec.removeprefix(NETWORK).rpartition("/")
        return _network(folder).task(kernel)
    if spec in SUITES:
        raise InputError(
            f"{spec!r} is a suite of {len(SUITES[spec])} tasks, and one task is expected; "
            f"name a member, for example {members(spec)[0]!r}"
        )
    if "/" in spec.partition(":")[0]:
        suite, _, member = spec.partition("/")
        return _operator_task(member_spec(suite, member), name=spec)
    return _operator_task(spec)


def resolve_many(spec: str) -> list[Task]:
    """Build all tasks that a TASK string or the name of a suite stands for.

    Args:
        spec: The name of a suite, for all its members in order; `network:model.onnx` for all
            kernels of a network that can be tuned; otherwise as `resolve`.

    Raises:
        SchedenvError: As `resolve`.
    """
    spec = spec.strip()
    if spec.startswith(NETWORK):
        folder = Path(spec.removeprefix(NETWORK))
        if folder.suffix in NETWORK_FILES or folder.is_dir():
            network = _network(str(folder))
            return [network.task(kernel) for kernel in network.entries]
    return [resolve(task) for task in (members(spec) if spec in SUITES else (spec,))]


def _network(path: str) -> Network:
    # Not before it is needed: it is the only kind of task that starts another process.
    from schedenv.tasks.networks.prepare import prepare

    return prepare(Path(path).expanduser())


def _operator_task(spec: str, name: str = "") -> Task:
    head, at, dtype = spec.partition("@")
    operator_name, colon, shape = head.partition(":")
    operator = _operator(operator_name)
    return operator.task(shape if colon else None, dtype if at else DTYPES[0], name)


def _operator(name: str) -> Operator:
    if name not in OPERATORS:
        lower = name.lower()
        hint = f"(names are lower case: {lower!r})" if lower in OPERATORS else ""
        raise UnknownNameError("operator or suite", name, [*OPERATORS, *SUITES], hint)
    return OPERATORS[name]
