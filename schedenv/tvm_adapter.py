"""The TVM internals that have moved before; `tvm_database`, `_features`, `_relax` touch others.

`tvm.meta_schedule` became `tvm.s_tir.meta_schedule` in 0.24, `GetBlock` became `GetSBlock`,
`structural_hash` left `tvm.ir`: when the next release moves them again, only these
files change.
The rest of schedenv uses the stable surface alone (`tvm.te`, `tvm.topi`, `tvm.target`,
`tvm.runtime`) and the names defined here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedenv import tvm_lowering
from schedenv.errors import ConstraintError, InstallError

if TYPE_CHECKING:
    from types import ModuleType

    from tvm import IRModule
    from tvm.target import Target

KNOWN_GOOD_FFI = ">=0.1.14.post0,<0.1.15"


def check_install() -> None:
    """Refuse the pair of packages that crashes, before TVM is imported.

    Raises:
        InstallError: apache-tvm or apache-tvm-ffi is missing, or apache-tvm-ffi is of the 0.1.15
            series, with which apache-tvm 0.27 dies of a segmentation fault in `save_json`.
    """
    versions = {}
    for package in ("apache-tvm", "apache-tvm-ffi"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise InstallError(
                f"the package {package} is not installed; "
                f"run: pip install 'apache-tvm==0.27.*' 'apache-tvm-ffi{KNOWN_GOOD_FFI}'"
            ) from None
    ffi = versions["apache-tvm-ffi"]
    if versions["apache-tvm"].startswith("0.27.") and ffi.startswith("0.1.15"):
        raise InstallError(
            f"apache-tvm-ffi {ffi} crashes apache-tvm {versions['apache-tvm']}; expected "
            f"apache-tvm-ffi{KNOWN_GOOD_FFI}; "
            f"run: pip install 'apache-tvm-ffi{KNOWN_GOOD_FFI}'"
        )


@functools.cache
def meta_schedule_package() -> ModuleType:
    """MetaSchedule, imported without the tensor intrinsics that the llvm rules never use."""
    check_install()
    skip_tensor_intrinsics()
    return importlib.import_module("tvm.s_tir.meta_schedule")


def skip_tensor_intrinsics() -> None:
    """Keep MetaSchedule from importing its tensor intrinsics in this process.

    `TuneContext` and every process that builds for MetaSchedule import `tvm.s_tir.tensor_intrin`,
    which parses some 500 TVMScript functions for CUDA, Hexagon and others: 14 to 40 seconds a
    process (measured), for nothing on a CPU. The package is registered unexecuted; its submodules
    can still be imported one by one.
    """
    name = "tvm.s_tir.tensor_intrin"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)


# ---------------------------------------------------------------------------------------------
# Programs
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Argument:
    """One buffer parameter of a PrimFunc.

    Attributes:
        name: The parameter's name.
        shape: Its extents.
        dtype: Its element type, numpy spelling.
        is_output: Whether the program writes it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_output: bool


def is_prim_func(value: object) -> bool:
    """Whether `value` is a PrimFunc of the installed TVM."""
    from tvm.tirx import PrimFunc

    return isinstance(value, PrimFunc)


def module_from_tensors(tensors: Sequence[Any]) -> IRModule:
    """Turn TE tensors (inputs, then outputs) into a module with one function, `main`."""
    from tvm import te

    return module_from_prim_func(te.create_prim_func(list(tensors)))


def module_from_prim_func(func: Any) -> IRModule:
    """Wrap a PrimFunc as the function `main` of a module, marked free of aliases."""
    from tvm import IRModule

    func = func.with_attr("global_symbol", "main").with_attr("tirx.noalias", True)
    return IRModule({"main": func})


def ansor_operators() -> ModuleType:
    """TVM's own TE definitions of the Ansor-lineage operators."""
    meta_schedule_package()
    return importlib.import_module("tvm.s_tir.meta_schedule.testing.te_workload")


def arguments(mod: IRModule) -> tuple[Argument, ...]:
    """The buffer parameters of the function `main`, in calling order."""
    meta_schedule = meta_schedule_package()
    func = mod["main"]
    written = [region.source for block in blocks(mod) for region in block.writes]
    infos = meta_schedule.arg_info.ArgInfo.from_prim_func(func)
    return tuple(
        Argument(
            name=str(param.name),
            shape=tuple(int(extent) for extent in info.shape),
            dtype=str(info.dtype),
            is_output=any(source.same_as(param) for source in written),
        )
        for param, info in zip(func.params, infos, strict=True)
    )


@dataclass(frozen=True)
class Axis:
    """One iteration axis of a block."""

    name: str
    is_reduction: bool


def block_axes(mod: IRModule, block: str) -> tuple[Axis, ...]:
    """The axes of a block; empty for a block that the unscheduled module does not have."""
    for candidate in blocks(mod):
        if str(candidate.name_hint) == block:
            return tuple(
                Axis(str(axis.var.name), is_reduction(axis)) for axis in candidate.iter_vars
            )
    return ()


def blocks(mod: IRModule) -> list[Any]:
    """The TIR blocks directly under the root of `main`, in program order."""
    from tvm.s_tir import Schedule

    schedule = Schedule(mod)
    return [schedule.get(block) for block in schedule.get_child_blocks(schedule.get_sblock("root"))]


def is_reduction(axis: Any) -> bool:
    """Whether an axis of a TIR block is a reduction."""
    from tvm.tirx import IterVar

    return int(axis.iter_type) == int(IterVar.CommReduce)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a PrimFunc as it was declared, buffer or not.

    Attributes:
        name: Its name.
        shape: Extents: numbers, or the text of what is not a constant; None for a scalar.
        dtype: Its element type; None for a scalar.
    """

    name: str
    shape: tuple[int | str, ...] | None
    dtype: str | None


def parameters(mod: IRModule) -> list[Parameter]:
    """The parameters of `main`, before any of them is known to be usable."""
    from tvm.tirx import IntImm
    from tvm.tirx.buffer import BufferType

    found = []
    for param in mod["main"].params:
        if isinstance(param.ty, BufferType):
            shape = tuple(
                int(extent) if isinstance(extent, IntImm) else str(extent) for extent in param.shape
            )
            found.append(Parameter(str(param.name), shape, str(param.dtype)))
        else:
            found.append(Parameter(str(param.name), None, None))
    return found


def count_flops(mod: IRModule) -> float:
    """TVM's own estimate of the arithmetic operations in `mod`, transcendentals counted as one."""
    from tvm import s_tir

    return float(s_tir.analysis.estimate_tir_flops(mod))


def structural_hash(mod: IRModule) -> str:
    """A hash of the program's structure, equal in every process, as 16 hexadecimal digits."""
    import tvm_ffi

    return f"{tvm_ffi.structural_hash(mod) & 0xFFFFFFFFFFFFFFFF:016x}"


def module_to_json(mod: IRModule) -> str:
    """Serialise a module; `module_from_json` reads it back."""
    import tvm

    return str(tvm.ir.save_json(mod))


def module_from_json(text: str) -> IRModule:
    """Read what `module_to_json` wrote."""
    import tvm

    return tvm.ir.load_json(text)


# ---------------------------------------------------------------------------------------------
# Targets and code
# ---------------------------------------------------------------------------------------------


def host_cpu() -> str:
    """LLVM's name for this processor, for a target's `mcpu`."""
    check_install()
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


_FUNCTIONS = Path(__file__).with_name("llvm_functions")
_MOST_LOOPS = len(list(_FUNCTIONS.glob("*.csv"))) - 1

QUICK_LLVM = (
    "-dag-maps-huge-region:uint=100",
    "-scalar-evolution-max-cast-depth:uint=2",
    "-disable-lsr:bool=true",
)
"""Options with which LLVM compiles candidates faster; see `runs/compile_cost.py`.

- The machine instruction scheduler, quadratic in the memory accesses of a basic block, gives up
  precision from 100 of them on instead of 1,000: huge unrolled loop bodies have more.
- Scalar evolution looks two levels deep instead of eight for a way to widen an index: TVM's indices
  have 32 bits, addresses 64, so every index of an unrolled body is widened.
- Loop strength reduction, half of emitting, is left out: an x86 address has room for an index.
"""


def make_target(mcpu: str, cores: int, llvm_options: Sequence[str] = ()) -> Target:
    """A CPU target. Without `num-cores` MetaSchedule refuses; without `mcpu` there is no AVX.

    Args:
        mcpu: As `host_cpu` gives it.
        cores: How many the kernels use.
        llvm_options: LLVM's command-line options as TVM spells them, `-name:type=value`.
    """
    from tvm.target import Target

    config = {"kind": "llvm", "mcpu": mcpu, "num-cores": cores}
    return Target({**config, "cl-opt": list(llvm_options)} if llvm_options else config)


def lower(mod: IRModule, target: Target) -> IRModule:
    """Run all of TVM's lowering passes on a scheduled module; see `tvm_lowering`."""
    return tvm_lowering.Lowering(mod, target).finished


def generate_code(lowered: IRModule, target: Target) -> Any:
    """Turn a lowered module into a runtime module that this process can call.

    LLVM optimises here and emits the machine code when the function is first looked up. The
    checks of argument types and shapes are left out: they are a tenth of the compile time, the
    kernel itself is the same, and a caller of ours always passes what the task declares.
    """
    import tvm
    from tvm import tirx

    with_no_checks = tirx.transform.SkipAssert()(lowered)
    target = with_attributes(target, parallel_loops(lowered))
    return tvm.get_global_func("target.build.llvm")(with_no_checks, target)


def with_attributes(target: Target, loops: int) -> Target:
    """A target that gives LLVM attributes for single functions of a module that is named `main`.

    - What a parallel loop does is a function of its own, and gets a frame pointer. LLVM can align a
      stack only with one, and decides that before it knows what will be spilled: without, vectors
      of 32 or 64 bytes are spilled to a stack that is aligned to 16, and cross cache lines or not
      depending on where the process has its stack. In every second process one schedule took 1.4
      times as long (`runs/processes.py`).
    - The two conversions to and from half precision, which TVM puts into every module whether it
      needs them or not (`EmitFloat16ConversionBuiltins` in `codegen_llvm.cc`), are not optimised; a
      kernel of half precision on a processor without instructions for it would be slower.

    LLVM complains about functions that are not there, so there is a file for each number of loops.

    Args:
        target: For what code is generated.
        loops: How many parallel loops the module has; those beyond the eighth stay as they are.
    """
    from tvm.target import Target

    config = dict(target.export())
    functions = _FUNCTIONS / f"{min(loops, _MOST_LOOPS)}.csv"
    options = [*config.get("cl-opt", ()), f"-forceattrs-csv-path:string={functions}"]
    return Target({**config, "cl-opt": options})


def parallel_loops(lowered: IRModule) -> int:
    """How many parallel loops a lowered module has; there are none inside of one."""
    from tvm import tirx

    loops, left = 0, [function.body for function in lowered.functions.values()]
    while left:
        statement = left.pop()
        if isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL:
            loops += 1
            continue
        left.extend(getattr(statement, "seq", ()))
        inside = (getattr(statement, name, None) for name in ("body", "then_case", "else_case"))
        left.extend(part for part in inside if part is not None)
    return loops


def build(mod: IRModule, target: Target) -> Any:
    """Compile `mod` to a runtime module that this process can call (JIT on first call)."""
    return generate_code(lower(mod, target), target)


# ---------------------------------------------------------------------------------------------
# Sketches and traces
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DesignSpace:
    """What MetaSchedule generates for one module.

    Attributes:
        mod: The module as MetaSchedule normalised it; traces apply to it.
        traces: One trace a sketch, its sampling decisions arbitrary.
        postprocs: MetaSchedule's postprocessors, to be applied in order.
    """

    mod: IRModule
    traces: tuple[Any, ...]
    postprocs: tuple[Any, ...]


def design_space(mod: IRModule, target: Target) -> DesignSpace:
    """Generate the sketches of `mod` with the plain llvm rules.

    The rules are named, not taken from the target: an AVX-512 or VNNI target would add int8
    rules, and the same task would have other sketches on another machine.
    """
    meta_schedule = meta_schedule_package()
    generator = meta_schedule.space_generator.PostOrderApply(
        sch_rules="llvm", postprocs="llvm", mutator_probs="llvm"
    )
    context = meta_schedule.TuneContext(
        mod=mod, target=target, space_generator=generator, num_threads=1, rand_state=1
    )
    schedules = context.generate_design_space()
    return DesignSpace(
        mod=context.mod,
        traces=tuple(schedule.trace for schedule in schedules),
        postprocs=tuple(context.space_generator.postprocs),
    )


def replay(mod: IRModule, instructions: Sequence[Any], decisions: Mapping[Any, Any]) -> Any:
    """Apply a trace, without its postprocessing part, to a fresh schedule.

    Raises:
        ConstraintError: A schedule primitive refused.
    """
    from tvm.s_tir import Schedule, Trace

    schedule = Schedule(mod, seed=1, debug_mask="none", error_render_level="none")
    # TVM refuses with exceptions of many kinds; whichever it is, this point cannot be applied.
    try:
        Trace(list(instructions), dict(decisions)).apply_to_schedule(schedule, remove_postproc=True)
    except Exception as error:
        raise ConstraintError(f"replay refused: {first_line(error)}") from error
    return schedule


def postprocess(schedule: Any, postprocs: Sequence[Any]) -> None:
    """Run MetaSchedule's postprocessors on a replayed schedule, in place.

    Raises:
        ConstraintError: A postprocessor refused.
    """
    schedule.enter_postproc()
    for postproc in postprocs:
        try:
            accepted = postproc.apply(schedule)
        except Exception as error:
            raise ConstraintError(
                f"{type(postproc).__name__} raised: {first_line(error)}"
            ) from error
        if not accepted:
            raise ConstraintError(f"{type(postproc).__name__} refused the schedule")


def loop_node(schedule: Any, loop: Any) -> Any | None:
    """The loop statement that a random variable stands for; None if it no longer exists."""
    try:
        return schedule.get(loop)
    except ValueError:
        return None


def first_line(error: BaseException) -> str:
    """The first line of an exception's text that says something."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    return type(error).__name__


def copy_instruction(
    instruction: Any, inputs: Sequence[Any] | None = None, attrs: Sequence[Any] | None = None
) -> Any:
    """The same instruction with other inputs or attributes."""
    from tvm.s_tir.schedule import Instruction

    return Instruction(
        instruction.kind,
        list(instruction.inputs if inputs is None else inputs),
        list(instruction.attrs if attrs is None else attrs),
        list(instruction.outputs),
    )


# ---------------------------------------------------------------------------------------------
# Schedules by hand
# ---------------------------------------------------------------------------------------------


def new_schedule(mod: IRModule) -> Any:
    """A schedule of `mod` with no primitive applied, for the few kernels scheduled by hand."""
    check_install()
    from tvm.s_tir import Schedule

    return Schedule(mod)
