"""Tasks from a user's own Python file: `program.py:function`."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from schedenv import tvm_adapter
from schedenv.errors import ProgramFileError
from schedenv.tasks.memory import check_memory
from schedenv.tasks.program_checks import (
    check_buffers,
    check_dataflow,
    check_tensors,
    longest_reduction,
)
from schedenv.tasks.task import Array, Reference, Task, traffic_bytes
from schedenv.user_file import check_file, import_file, running_user_code

if TYPE_CHECKING:
    from tvm import IRModule

_REFERENCE_SUFFIX = "_reference"
_EXPECTED = (
    "a PrimFunc, an IRModule with one PrimFunc, or a function without arguments that returns "
    "a list of TE tensors (inputs, then outputs) or a PrimFunc"
)


def is_program_spec(spec: str) -> bool:
    """Whether a TASK string names a Python file."""
    return ".py:" in spec or spec.endswith(".py")


def program_task(spec: str) -> Task:
    """Build the task of a user's program; the file is imported, so its code runs.

    The attribute named after the colon is a PrimFunc, an IRModule with one PrimFunc, or a function
    without arguments that returns a list of TE tensors (inputs, then outputs) or a PrimFunc. If
    the file also defines `<function>_reference`, that maps the list of inputs (float64 arrays) to
    the list of outputs; without it the unscheduled program is the reference.

    Args:
        spec: `path/to/program.py:function`; a relative path starts at the working directory.

    Raises:
        ProgramFileError: The file or function is missing, fails, or is no static program on
            float32 or float64 buffers.
        MemoryLimitError: The buffers do not fit in memory.
    """
    path_text, separator, name = spec.rpartition(":")
    if not separator or not path_text.endswith(".py") or not name.isidentifier():
        path_text = spec[: spec.rfind(".py") + 3]
        raise ProgramFileError(
            f"{spec!r} names no function; write the file, a colon and the function's name, "
            f"for example '{path_text}:main'"
        )
    path = Path(path_text).expanduser()
    check_file(spec, path)
    tvm_adapter.check_install()
    module = import_file(spec, path)
    if not hasattr(module, name):
        raise ProgramFileError(f"{spec}: {_missing_name(module, path_text, name)}")
    mod = _to_module(spec, path, getattr(module, name))
    check_buffers(spec, mod)
    try:
        arguments = tvm_adapter.arguments(mod)
    # TVM refuses with exceptions of many kinds; whichever it is, the program is what is at fault.
    except Exception as error:
        raise ProgramFileError(
            f"{spec}: TVM finds no blocks to schedule in this program; in TVMScript decorate it "
            f"with @T.prim_func(s_tir=True) and wrap each computation in T.sblock "
            f"({tvm_adapter.first_line(error)})"
        ) from error
    check_dataflow(spec, mod, arguments)
    check_memory(spec, arguments)
    return Task(
        spec=spec,
        name=spec,
        family="program",
        mod=mod,
        arguments=arguments,
        flops=_count_flops(mod),
        bytes=traffic_bytes(arguments),
        reduction_length=longest_reduction(mod),
        reference=_find_reference(spec, path, module, name),
    )


# ---------------------------------------------------------------------------------------------
# From the file to a module
# ---------------------------------------------------------------------------------------------


def _missing_name(module: ModuleType, path_text: str, name: str) -> str:
    own = [key for key, value in vars(module).items() if _could_be_program(key, value, module)]
    message = f"the file {path_text!r} does not define {name!r}"
    near = difflib.get_close_matches(name, own, n=3, cutoff=0.5)
    if near:
        return f"{message}; did you mean {' or '.join(repr(match) for match in near)}?"
    if own:
        return f"{message}; it defines {', '.join(repr(key) for key in sorted(own))}"
    return f"{message}, nor any other program; define {_EXPECTED}"


def _could_be_program(key: str, value: object, module: ModuleType) -> bool:
    if key.startswith("_") or key.endswith(_REFERENCE_SUFFIX):
        return False
    if inspect.isfunction(value):
        return value.__module__ == module.__name__
    return tvm_adapter.is_prim_func(value) or _is_module(value)


def _is_module(value: object) -> bool:
    from tvm import IRModule

    return isinstance(value, IRModule)


def _to_module(spec: str, path: Path, value: Any) -> IRModule:
    """Make one of the accepted kinds of object a module with one function, `main`."""
    if inspect.isfunction(value):
        required = [
            parameter.name
            for parameter in inspect.signature(value).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if required:
            raise ProgramFileError(
                f"{spec}: the function must work without arguments, but needs "
                f"{', '.join(required)}; give them defaults"
            )
        with running_user_code(spec, path, "calling the function"):
            value = value()
    if tvm_adapter.is_prim_func(value):
        return tvm_adapter.module_from_prim_func(value)
    if _is_module(value):
        functions = [function for _, function in value.functions_items()]
        if len(functions) != 1 or not tvm_adapter.is_prim_func(functions[0]):
            raise ProgramFileError(
                f"{spec}: expected an IRModule with exactly one PrimFunc, got {len(functions)} "
                f"functions; put the one to tune in a module of its own"
            )
        return tvm_adapter.module_from_prim_func(functions[0])
    if _is_tensor_list(value):
        check_tensors(spec, value)
        with running_user_code(spec, path, "making a program of the TE tensors"):
            return tvm_adapter.module_from_tensors(value)
    raise ProgramFileError(f"{spec}: expected {_EXPECTED}; got {_describe(value)}")


def _is_tensor_list(value: object) -> bool:
    from tvm import te

    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(item, te.Tensor) for item in value)
    )


def _describe(value: object) -> str:
    kind = type(value).__name__
    if value is None:
        return "nothing"
    if not isinstance(value, list | tuple):
        return f"an object of type {kind}"
    kinds = ", ".join(sorted({type(item).__name__ for item in value}))
    return f"a {kind} of {kinds}" if kinds else f"an empty {kind}"


def _count_flops(mod: IRModule) -> float:
    # TVM gives up, with exceptions of several kinds, on loops whose extents vary.
    try:
        return tvm_adapter.count_flops(mod)
    except Exception:
        return 0.0


# ---------------------------------------------------------------------------------------------
# The user's reference
# ---------------------------------------------------------------------------------------------


def _find_reference(spec: str, path: Path, module: ModuleType, name: str) -> Reference | None:
    function = getattr(module, name + _REFERENCE_SUFFIX, None)
    if function is None:
        return None
    if not callable(function):
        raise ProgramFileError(
            f"{spec}: {name}{_REFERENCE_SUFFIX} must be a function from a list of arrays to a list "
            f"of arrays; got {_describe(function)}"
        )
    return functools.partial(_call_reference, spec, path, function)


def _call_reference(
    spec: str,
    path: Path,
    function: Callable[[list[Array]], Sequence[Any]],
    inputs: Sequence[Array],
) -> list[Array]:
    with running_user_code(spec, path, "calling its reference"):
        outputs = function(list(inputs))
    if not isinstance(outputs, list | tuple):
        raise ProgramFileError(
            f"{spec}: its reference must return a list of arrays, one an output; "
            f"got {_describe(outputs)}"
        )
    return [np.asarray(output, dtype=np.float64) for output in outputs]
