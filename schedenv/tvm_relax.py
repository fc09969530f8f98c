"""Networks in TVM: import, graph passes, kernels taken out and put back, compilation.

Next to `schedenv.tvm_adapter`, the only module that touches Relax, whose passes move between
releases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedenv import tvm_adapter, tvm_lowering, tvm_math, tvm_rewrites

if TYPE_CHECKING:
    from tvm import IRModule
    from tvm.target import Target

_CHANNELS_LAST = {
    "relax.nn.conv1d": ["NWC", "WIO"],
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv3d": ["NDHWC", "DHWIO"],
}


@dataclass(frozen=True)
class Kernel:
    """One PrimFunc of a prepared network.

    Attributes:
        name: Its name in the network.
        mod: A module with it alone, as `main`.
        calls: How often the network calls it.
        weights: Which of its arguments are constants in every call.
    """

    name: str
    mod: IRModule
    calls: int
    weights: tuple[int, ...]


def unsupported_operators(operators: Sequence[str]) -> list[str]:
    """Those of ONNX's operators that TVM's front end cannot convert, sorted."""
    tvm_adapter.check_install()
    from tvm.relax.frontend.onnx import onnx_frontend

    known = {*onnx_frontend._get_convert_map(), "If", "Constant"}
    return sorted(set(operators) - known)


def import_onnx(model: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> IRModule:
    """Convert a loaded ONNX model; its weights become constants.

    Args:
        model: An `onnx.ModelProto`.
        shapes: Extents of inputs that the model leaves open, by name.
    """
    tvm_adapter.check_install()
    from tvm.relax.frontend.onnx import from_onnx

    given = {name: list(shape) for name, shape in (shapes or {}).items()}
    return from_onnx(model, shape_dict=given or None, sanitize_input_names=False)


def unsupported_torch_operators(program: Any) -> list[str]:
    """Those operators of a `torch.export.ExportedProgram` that TVM cannot convert, sorted."""
    tvm_adapter.check_install()
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    called = {
        str(getattr(node.target, "__name__", node.target))
        for node in program.graph.nodes
        if node.op == "call_function"
    }
    return sorted(called - set(ExportedProgramImporter().convert_map))


def import_torch(program: Any, extents: Mapping[str, int] | None = None) -> IRModule:
    """Convert an exported torch program; its weights become constants.

    Args:
        program: A `torch.export.ExportedProgram` of core ATen operators.
        extents: Numbers for its symbolic extents, by symbol.
    """
    tvm_adapter.check_install()
    from tvm.relax import transform
    from tvm.relax.frontend.torch import from_exported_program

    mod = from_exported_program(program, run_ep_decomposition=False, unwrap_unit_return_tuple=True)
    return transform.BindSymbolicVars(dict(extents), "main")(mod) if extents else mod


def parameters(mod: IRModule) -> list[tuple[str, tuple[int, ...] | None, str]]:
    """Name, shape and dtype of each input of `main`; a shape of None is not static."""
    return [
        (str(param.name), tvm_rewrites.static_shape(param), str(param.ty.dtype))
        for param in mod["main"].params
    ]


def simplify(mod: IRModule, *, channels_last: bool) -> IRModule:
    """Fold batch norms and constants; with `channels_last`, turn convolutions to NHWC.

    Weights are constants, so turning them is folded too: they are packed once, here.
    """
    import tvm
    from tvm.relax import transform

    mod = tvm_rewrites.split_clips(tvm_rewrites.fold_pads(mod))
    mod = tvm_rewrites.sink_reshapes(mod)
    passes = [
        transform.FoldBatchnormToConv2D(),
        transform.DecomposeOpsForInference(),
        transform.FoldConstant(),
    ]
    if channels_last:
        passes += [
            transform.ConvertLayout(_CHANNELS_LAST),
            transform.Normalize(),
            transform.FoldConstant(),
            transform.CanonicalizeBindings(),
        ]
    passes += [transform.FoldConstant(), transform.DeadCodeElimination()]
    return tvm.transform.Sequential(passes)(mod)


def fuse(mod: IRModule) -> IRModule:
    """Lower operators to PrimFuncs and fuse them: what is left of `main` calls kernels.

    Transcendental functions become polynomials; see `schedenv.tvm_math`.
    """
    import tvm
    from tvm.relax import transform

    return tvm.transform.Sequential(
        [
            transform.LegalizeOps(dict(tvm_math.fast_operators())),
            transform.AnnotateTIROpPattern(),
            transform.FoldConstant(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
        ]
    )(mod)


def call_sequence(mod: IRModule) -> list[str]:
    """The names of the PrimFuncs that `main` calls, one a call, in order."""
    return [name for name, _ in _kernel_calls(mod)]


def _kernel_calls(mod: IRModule) -> list[tuple[str, Any]]:
    """The name of each PrimFunc that `main` calls, and its operands."""
    from tvm import relax

    calls: list[tuple[str, Any]] = []

    def visit(expression: Any) -> None:
        if is_kernel_call(expression):
            calls.append((str(expression.args[0].name_hint), expression.args[1]))

    relax.analysis.post_order_visit(mod["main"], visit)
    return calls


def kernels(mod: IRModule) -> list[Kernel]:
    """The PrimFuncs that `main` calls, in the order of their first call."""
    from tvm.ir import GenericConst

    constants: dict[str, list[set[int]]] = {}
    for name, operands in _kernel_calls(mod):
        found = {i for i, operand in enumerate(operands) if isinstance(operand, GenericConst)}
        constants.setdefault(name, []).append(found)
    return [
        Kernel(
            name,
            tvm_adapter.module_from_prim_func(mod[name]),
            len(calls),
            tuple(sorted(set.intersection(*calls))),
        )
        for name, calls in constants.items()
    ]


def is_reshape(kernel: IRModule) -> bool:
    """Whether a kernel only gives its operand another shape: the network passes it on uncopied."""
    from tvm import relax

    return bool(relax.analysis.has_reshape_pattern(kernel["main"]))


def is_kernel_call(expression: Any) -> bool:
    """Whether an expression of the network calls a PrimFunc."""
    from tvm import relax

    return isinstance(expression, relax.Call) and getattr(expression.op, "name", "") in (
        "relax.call_tir",
        "relax.call_tir_inplace",
    )


def with_kernels(mod: IRModule, scheduled: Mapping[str, IRModule]) -> IRModule:
    """The network with some kernels replaced by scheduled ones of the same signature."""
    from tvm import IRModule

    functions = dict(mod.functions_items())
    for global_var, function in list(functions.items()):
        if str(global_var.name_hint) in scheduled and tvm_adapter.is_prim_func(function):
            new = scheduled[str(global_var.name_hint)]["main"]
            functions[global_var] = new.with_attr("global_symbol", str(global_var.name_hint))
    return IRModule(functions, attrs=mod.attrs)


def with_blocks(builder: Any, mod: IRModule, blocks: Sequence[Any]) -> IRModule:
    """The network that a builder has begun, with other blocks of bindings in `main`.

    Args:
        builder: A `relax.BlockBuilder` of `mod`, to which functions may have been added.
        mod: The network.
        blocks: In the place of those of its `main`.
    """
    import tvm
    from tvm import relax

    main = mod["main"]
    body = relax.SeqExpr(blocks, main.body.body)
    builder.update_func(
        mod.get_global_var("main"),
        relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs),
    )
    passes = [relax.transform.Normalize(), relax.transform.DeadCodeElimination()]
    return tvm.transform.Sequential(passes)(builder.get())


def compile_network(
    mod: IRModule, target: Target, *, fused: bool = True, common_subexpressions: bool = False
) -> Any:
    """Compile a network for Relax's virtual machine.

    Args:
        mod: What `fuse` or `with_kernels` returned; what the import returned if not `fused`.
        target: The machine.
        fused: Whether operators are kernels already; if not, TVM's own pipeline makes them so.
        common_subexpressions: Whether TVM eliminates them, as it does on its own; see
            `tvm_lowering.CODE_CONFIG`.
    """
    import tvm
    from tvm import relax
    from tvm.relax.backend.cpu_generic import pipeline as cpu

    if not fused:
        return relax.build(mod, target)
    passes = [*cpu.dataflow_lower_passes(target), *cpu.finalize_passes(target)]
    config = {} if common_subexpressions else tvm_lowering.CODE_CONFIG
    with tvm.transform.PassContext(config=config):
        return relax.build(mod, target, relax_pipeline=tvm.transform.Sequential(passes))


def export_network(executable: Any, path: Path) -> None:
    """Write a compiled network as a shared library; needs a C++ compiler as linker."""
    executable.export_library(str(path))


def load_network(path: Path) -> Any:
    """The virtual machine of an exported network; call its function `main` with tensors."""
    tvm_adapter.check_install()
    import tvm
    from tvm import relax

    return relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
