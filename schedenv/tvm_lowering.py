"""From a scheduled module to what LLVM gets, in two halves, and what tells equal code.

TVM's pipeline is taken as it is but for passes that change nothing for a processor.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvm import IRModule
    from tvm.target import Target

CODE_CONFIG = {"tirx.disable_cse_tir": True}
"""Settings of `tvm.transform.PassContext` under which every kernel of ours is compiled.

TVM's elimination of common subexpressions takes half of the time of lowering, LLVM eliminates them
too, and what it pulls out of loops can cost registers: with it, a kernel may take more than twice
as long; see `runs/common_subexpressions.md`.
"""

_NEEDLESS_PASSES = (
    "tirx.RemoveNoOp",
    "s_tir.InferFragment",
    "s_tir.InjectDoubleBuffer",
    "s_tir.InjectPermutedLayout",
    "s_tir.InjectSoftwarePipeline",
    "s_tir.InjectVirtualThread",
    "s_tir.LiftThreadBinding",
    "s_tir.LowerAutoCopy",
    "s_tir.LowerCrossThreadReduction",
    "s_tir.LowerThreadAllreduce",
    "s_tir.LowerVtcmAlloc",
    "s_tir.ManifestSharedMemoryLocalStage",
    "s_tir.MergeSharedMemoryAllocations",
    "s_tir.ThreadSync",
    "s_tir.TransformMmaBufferLayout",
    "s_tir.UnifyThreadBinding",
    "s_tir.VerifyVTCMLimit",
)
"""Passes of TVM's that are left out, a fourth of lowering: LLVM's code is the same without them.

All but the first look for what only programs for accelerators have.
"""


class Lowering:
    """A scheduled module on its way to what LLVM gets, stopped where TVM would unroll its loops.

    What follows is most of lowering, for it simplifies every unrolled statement by itself: a tenth
    of a second and more where there are thousands. Modules that are equal here need it but once.

    Args:
        mod: The scheduled module.
        target: What it is lowered for.

    Attributes:
        outline: Hash of the module with its loops not unrolled yet. Equal outlines become equal
            code; different ones may, too.
    """

    def __init__(self, mod: IRModule, target: Target) -> None:
        from tvm import tirx

        self._target = target
        self._before, self._after = _halves_of_pipeline()
        bound = tirx.transform.BindTarget(target.with_host(target))(mod)
        self._outlined = self._run(bound, without=self._after)
        self.outline = code_hash(self._outlined)

    @functools.cached_property
    def finished(self) -> IRModule:
        """What LLVM gets: the other passes are run when it is first asked for.

        Two schedules for which it is equal (compare `code_hash`) are the same code.
        """
        return self._run(self._outlined, without=self._before)

    def _run(self, mod: IRModule, without: Sequence[str]) -> IRModule:
        import tvm

        with tvm.transform.PassContext(
            config=CODE_CONFIG, disabled_pass=[*_NEEDLESS_PASSES, *without]
        ):
            return _pipeline(mod, self._target)


def _pipeline(mod: IRModule, target: Target) -> IRModule:
    from tvm import tirx

    passes, finalize, _ = tirx.get_default_tir_pipeline(target)
    return finalize()(passes(mod))


@functools.cache
def _halves_of_pipeline() -> tuple[list[str], list[str]]:
    """Names of the passes that lowering runs before loops are unrolled, and from then on."""
    import tvm

    names: list[str] = []

    class Names:
        def run_before_pass(self, _: IRModule, info: Any) -> None:
            names.append(str(info.name))

    with tvm.transform.PassContext(instruments=[tvm.ir.instrument.pass_instrument(Names)()]):
        _pipeline(tvm.IRModule(), tvm.target.Target("llvm"))
    single = [name for name in names if name not in _CONTAINERS]
    unrolling = single.index("tirx.UnrollLoop")
    return single[:unrolling], single[unrolling:]


_CONTAINERS = ("_pipeline", "sequential")
"""Passes of TVM's that run others."""


def code_hash(lowered: IRModule) -> str:
    """A hash of a lowered module, equal in every process, as 16 hexadecimal digits.

    Lowering leaves variables that no parameter declares; they are matched by place, not identity.
    """
    import tvm_ffi

    number = tvm_ffi.structural_hash(lowered, map_free_vars=True)
    return f"{number & 0xFFFFFFFFFFFFFFFF:016x}"
