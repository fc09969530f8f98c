"""The adapter: the installed pair of packages, programs, hashes, sketches, imports."""

import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_lowering
from schedenv.errors import ConstraintError, InstallError
from schedenv.space import Space
from schedenv.tasks import Task, resolve


def versions(monkeypatch: pytest.MonkeyPatch, **installed: str | None) -> None:
    """Pretend that these versions are installed; None for a package that is missing."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        known = installed.get(name.replace("-", "_"), "real")
        if known is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name) if known == "real" else known

    monkeypatch.setattr(importlib.metadata, "version", version)


# -- the installation -------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["apache-tvm", "apache-tvm-ffi"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, **{package.replace("-", "_"): None})
    with pytest.raises(InstallError) as refusal:
        tvm_adapter.check_install()
    assert str(refusal.value) == (
        f"the package {package} is not installed; "
        "run: pip install 'apache-tvm==0.27.*' 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'"
    )


@pytest.mark.parametrize("ffi", ["0.1.15", "0.1.15.post1"])
def test_the_pair_that_crashes_is_refused_with_the_command_that_mends_it(
    ffi: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, apache_tvm="0.27.0", apache_tvm_ffi=ffi)
    with pytest.raises(InstallError) as refusal:
        tvm_adapter.check_install()
    assert str(refusal.value) == (
        f"apache-tvm-ffi {ffi} crashes apache-tvm 0.27.0; expected "
        "apache-tvm-ffi>=0.1.14.post0,<0.1.15; "
        "run: pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'"
    )


@pytest.mark.parametrize(
    ("tvm", "ffi"), [("0.27.0", "0.1.14.post0"), ("0.27.0", "0.1.14.post1"), ("0.28.0", "0.1.15")]
)
def test_other_pairs_are_accepted(tvm: str, ffi: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, apache_tvm=tvm, apache_tvm_ffi=ffi)
    tvm_adapter.check_install()


def test_the_tensor_intrinsics_are_never_executed() -> None:
    program = (
        "import sys\n"
        "from schedenv import hardware as hw, tvm_adapter\n"
        "from schedenv.tasks import resolve\n"
        "mod = resolve('gmm:1x16x16x16').mod\n"
        "design = tvm_adapter.design_space(mod, hw.target(hw.detect()))\n"
        "name = 'tvm.s_tir.tensor_intrin'\n"
        "print(len(design.traces), name in sys.modules,\n"
        "      [module for module in sys.modules if module.startswith(name + '.')])\n"
    )
    assert _run(program) == "3 True []"


# -- programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "shapes", "outputs"),
    [
        ("gmm:2x3x5x7", [(2, 3, 7), (2, 7, 5), (2, 3, 5)], [False, False, True]),
        ("sfm:6x10", [(6, 10), (6, 10)], [False, True]),
        ("nrm:2x6x10", [(2, 6, 10), (2,)], [False, True]),
        (
            "c2d:1x6x6x4x8x3x1x1",
            [(1, 6, 6, 4), (3, 3, 4, 8), (1, 6, 6, 8)],
            [False, False, True],
        ),
        (
            "cbr:1x6x6x4x8x3x1x1",
            [(1, 6, 6, 4), (3, 3, 4, 8), (8,), (8,), (8,), (1, 6, 6, 8)],
            [False] * 5 + [True],
        ),
    ],
)
def test_arguments_come_in_calling_order_with_the_outputs_marked(
    spec: str, shapes: list[tuple[int, ...]], outputs: list[bool]
) -> None:
    arguments = tvm_adapter.arguments(resolve(spec).mod)
    assert [argument.shape for argument in arguments] == shapes
    assert [argument.is_output for argument in arguments] == outputs
    assert {argument.dtype for argument in arguments} == {"float32"}


def test_arguments_have_the_dtype_of_the_program() -> None:
    arguments = tvm_adapter.arguments(resolve("gmm:1x4x4x4@float64").mod)
    assert [argument.dtype for argument in arguments] == ["float64"] * 3


def test_a_matrix_product_has_two_operations_an_element_of_the_iteration_space() -> None:
    assert tvm_adapter.count_flops(resolve("gmm:2x3x5x7").mod) == 2 * 2 * 3 * 5 * 7


def test_the_axes_of_a_block_say_which_are_reductions(tiny_task: Task) -> None:
    axes = tvm_adapter.block_axes(tiny_task.mod, "Z")
    assert [axis.is_reduction for axis in axes] == [False, False, False, True]
    assert tvm_adapter.block_axes(tiny_task.mod, "no such block") == ()


def test_a_module_survives_its_json(tiny_task: Task) -> None:
    again = tvm_adapter.module_from_json(tvm_adapter.module_to_json(tiny_task.mod))
    assert tvm_adapter.structural_hash(again) == tiny_task.content_hash


# -- hashes -----------------------------------------------------------------------------------


def test_the_structural_hash_is_equal_in_another_process(tiny_task: Task) -> None:
    program = (
        "from schedenv import tvm_adapter\n"
        "from schedenv.tasks import resolve\n"
        "print(tvm_adapter.structural_hash(resolve('gmm:1x32x32x32').mod))\n"
    )
    assert _run(program) == tvm_adapter.structural_hash(tiny_task.mod)


def test_the_structural_hash_tells_programs_apart() -> None:
    specs = ["gmm:1x8x8x8", "gmm:1x8x8x4", "gmm:1x8x8x8@float64", "sfm:8x8"]
    hashes = [tvm_adapter.structural_hash(resolve(spec).mod) for spec in specs]
    assert len(set(hashes)) == len(specs)
    assert all(len(digits) == 16 and int(digits, 16) >= 0 for digits in hashes)


# -- lowering ---------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["gmm:1x32x32x32", "sfm:8x32", "t2d:1x4x4x16x8x4x2x1"])
def test_lowering_by_halves_and_without_needless_passes_gives_the_code_of_the_whole(
    spec: str, space_of: Callable[[str], Space], hardware: hw.Hardware
) -> None:
    import tvm
    from tvm import tirx

    space, target, rng = space_of(spec), hw.target(hardware), np.random.default_rng(0)
    codes: dict[str, str] = {}
    for _ in range(6):
        try:
            mod = space.apply(space.sample(rng)).mod
        except ConstraintError:
            continue
        with tvm.transform.PassContext(config=tvm_lowering.CODE_CONFIG):
            passes, finalize, _ = tirx.get_default_tir_pipeline(target)
            whole = finalize()(passes(tirx.transform.BindTarget(target.with_host(target))(mod)))
        lowering = tvm_lowering.Lowering(mod, target)
        code = tvm_lowering.code_hash(lowering.finished)
        assert code == tvm_lowering.code_hash(whole)
        assert codes.setdefault(lowering.outline, code) == code
    assert codes


# -- sketches ---------------------------------------------------------------------------------


def test_a_matrix_product_has_three_sketches_whatever_the_vector_extensions(
    tiny_task: Task,
) -> None:
    for mcpu in ("x86-64", "haswell", "cascadelake", "icelake-server"):
        design = tvm_adapter.design_space(tiny_task.mod, tvm_adapter.make_target(mcpu, 4))
        assert len(design.traces) == 3, mcpu


def test_the_target_carries_cores_and_processor(hardware: hw.Hardware) -> None:
    target = tvm_adapter.make_target("haswell", 6)
    assert (str(target.attrs["mcpu"]), int(target.attrs["num-cores"])) == ("haswell", 6)


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ValueError("\n\n  what it is\nmore"), "what it is"),
        (lambda: ValueError(""), "ValueError"),
        (KeyError, "KeyError"),
    ],
)
def test_the_first_line_of_an_error_says_something(
    make: Callable[[], Exception], line: str
) -> None:
    assert tvm_adapter.first_line(make()) == line


def _run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- attributes of functions ------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["gmm:1x64x64x64", "sfm:64x64", "dep:1x16x16x32x3x1x1"])
def test_every_parallel_loop_has_a_frame_pointer_to_align_its_stack_with(
    spec: str,
    space_of: Callable[[str], Space],
    hardware: hw.Hardware,
    capfd: pytest.CaptureFixture[str],
) -> None:
    space, target, rng = space_of(spec), hw.target(hardware), np.random.default_rng(0)
    most = 0
    for _ in range(8):
        try:
            lowered = tvm_adapter.lower(space.apply(space.sample(rng)).mod, target)
        except ConstraintError:
            continue
        text = tvm_adapter.generate_code(lowered, target).inspect_source("ll")
        bodies = re.findall(r"^define [^\n]*@__tvm_parallel_lambda[^\n]*\) #(\d+)", text, re.M)
        assert len(bodies) == tvm_adapter.parallel_loops(lowered)
        for group in bodies:
            (attributes,) = re.findall(rf"^attributes #{group} = ([^\n]*)", text, re.M)
            assert '"frame-pointer"="all"' in attributes
        most = max(most, len(bodies))
    assert most >= 1
    # LLVM complains there about functions that it does not find.
    assert capfd.readouterr().err == ""


def test_there_is_a_list_of_functions_for_each_number_of_loops() -> None:
    folder = Path(tvm_adapter.__file__).with_name("llvm_functions")
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{loops}.csv" for loops in range(9)]
    for loops, file in enumerate(files):
        names = [line.partition(",")[0] for line in file.read_text().splitlines()]
        numbered = ["__tvm_parallel_lambda", *(f"__tvm_parallel_lambda.{n}" for n in range(1, 9))]
        assert [name for name in names if "lambda" in name] == numbered[:loops]
