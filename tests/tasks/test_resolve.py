"""TASK strings: what they name, and what is said of those that name nothing."""

import subprocess
import sys

import pytest

from schedenv import errors
from schedenv.tasks import members, resolve, resolve_many, suite_names
from schedenv.tasks.memory import human_bytes, needed_bytes
from schedenv.tvm_adapter import Argument

GMM_HINT = "; expected gmm:BxNxMxK, for example 'gmm:1x128x128x128'"
C2D_HINT = (
    "; expected c2d:NxHxWxCIxCOxKxSxP[xdilation[xgroups]], for example 'c2d:1x56x56x64x64x1x1x0'"
)


def test_bare_operator_is_its_default_shape():
    task = resolve("gmm")
    assert (task.spec, task.name, task.family) == ("gmm:1x128x128x128",) * 2 + ("gmm",)
    assert task == resolve("ansor/gmm-0") == resolve("core/gmm-0")
    assert hash(task) == hash(resolve("ansor/gmm-0"))
    assert task != resolve("gmm:1x128x128x64")
    assert task != "gmm"


def test_member_keeps_its_name_and_the_spec_of_its_shape():
    task = resolve("core/gmm-2")
    assert (task.spec, task.name) == ("gmm:1x512x512x512", "core/gmm-2")


def test_spec_round_trips_and_drops_defaults():
    assert resolve("dil:1x8x8x4x4x3x1x1x2x1").spec == "dil:1x8x8x4x4x3x1x1"
    assert resolve("c2d:1x8x8x4x4x3x1x1x1x2").spec == "c2d:1x8x8x4x4x3x1x1x1x2"
    task = resolve("gmm@float64")
    assert task.spec == "gmm:1x128x128x128@float64"
    assert resolve(task.spec) == task
    assert {arg.dtype for arg in task.arguments} == {"float64"}
    assert resolve("dil:1x8x8x4x4x3x1x1") == resolve("c2d:1x8x8x4x4x3x1x1x2")


@pytest.mark.parametrize(("suite", "size"), [("ansor", 52), ("core", 13), ("odd", 16)])
def test_suites(suite, size):
    tasks = resolve_many(suite)
    assert [task.name for task in tasks] == list(members(suite))
    assert len(tasks) == len(set(tasks)) == size
    assert all(resolve(task.spec) == task for task in tasks)


def test_suite_names_and_resolve_many_of_one_task():
    assert suite_names() == ("ansor", "core", "odd")
    assert resolve_many("gmm") == [resolve("gmm")]
    with pytest.raises(errors.UnknownNameError, match=r"unknown suite 'cor'; did you mean 'core'"):
        members("cor")


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (
            "gmn",
            errors.UnknownNameError,
            "unknown operator or suite 'gmn'; did you mean 'gmm'?",
        ),
        (
            "GMM",
            errors.UnknownNameError,
            "unknown operator or suite 'GMM'; known: ansor, c1d, c2d, c3d, cap, cbr, core, dep, "
            "dil, gmm, grp, nrm, odd, sfm, t2d, tbg (names are lower case: 'gmm')",
        ),
        ("foo/gmm-1", errors.UnknownNameError, "unknown suite 'foo'; known: ansor, core, odd"),
        (
            "core/gmm-9",
            errors.UnknownNameError,
            "unknown core member 'gmm-9'; did you mean 'gmm-2' or 'gmm-0'?",
        ),
        (
            "core",
            errors.InputError,
            "'core' is a suite of 13 tasks, and one task is expected; name a member, for example "
            "'core/gmm-0'",
        ),
        (
            "model.onnx",
            errors.InputError,
            "'model.onnx' is a network, and one task is expected; tune it whole with schedenv "
            "tune, or name one of its kernels, such as 'network:model.onnx/NAME'; their names: "
            "schedenv tasks network:model.onnx",
        ),
        (
            " ",
            errors.InputError,
            "empty task; expected one of 'gmm', 'gmm:1x512x512x512', 'gmm:1x512x512x512@float64', "
            "'ansor/gmm-2', 'program.py:main'",
        ),
        (
            "gmm:1x4x4x4@float16",
            errors.InputError,
            "unsupported dtype 'float16' for gmm; expected float32 or float64, as in "
            "'gmm:1x128x128x128@float32'",
        ),
        (
            "sfm:4x4@float64",
            errors.InputError,
            "sfm exists in float32 only, because TVM's definition fixes it; got 'float64'; "
            "leave out '@float64'",
        ),
        (
            "gmm:",
            errors.ShapeError,
            "bad shape '' for gmm: expected 4 numbers, got 1" + GMM_HINT,
        ),
        (
            "gmm:1x2x3",
            errors.ShapeError,
            "bad shape '1x2x3' for gmm: expected 4 numbers, got 3" + GMM_HINT,
        ),
        (
            "c2d:1x8",
            errors.ShapeError,
            "bad shape '1x8' for c2d: expected 8 to 10 numbers, got 2" + C2D_HINT,
        ),
        (
            "gmm:1x0x2x3",
            errors.ShapeError,
            "bad shape '1x0x2x3' for gmm: N must be a positive integer, got '0'" + GMM_HINT,
        ),
        (
            "gmm:1x-5x2x3",
            errors.ShapeError,
            "bad shape '1x-5x2x3' for gmm: N must be a positive integer, got '-5'" + GMM_HINT,
        ),
        (
            "gmm:1x2.5x2x3",
            errors.ShapeError,
            "bad shape '1x2.5x2x3' for gmm: N must be a positive integer, got '2.5'" + GMM_HINT,
        ),
        (
            "c2d:1x8x8x4x4x3x1x-1",
            errors.ShapeError,
            "bad shape '1x8x8x4x4x3x1x-1' for c2d: P must be a non-negative integer, got '-1'"
            + C2D_HINT,
        ),
        (
            "c2d:1x4x4x3x3x7x1x0",
            errors.ShapeError,
            "bad shape '1x4x4x3x3x7x1x0' for c2d: the kernel K=7 with dilation 1 spans 7 elements, "
            "but H=4 with padding P=0 has only 4" + C2D_HINT,
        ),
        (
            "c2d:1x8x8x4x6x3x1x1x1x4",
            errors.ShapeError,
            "bad shape '1x8x8x4x6x3x1x1x1x4' for c2d: CO=6 is not divisible by groups=4" + C2D_HINT,
        ),
        (
            "t2d:1x1x1x4x4x2x1x1",
            errors.ShapeError,
            "bad shape '1x1x1x4x4x2x1x1' for t2d: the output would be 0x0: the padding P=1 cuts "
            "all off; expected t2d:NxHxWxCIxCOxKxSxP, for example 't2d:1x32x32x64x3x4x2x1'",
        ),
        (
            "gmm:1x2000000x1x1",
            errors.ShapeError,
            "bad shape '1x2000000x1x1' for gmm: N must be at most 1048576, got 2000000" + GMM_HINT,
        ),
    ],
)
def test_message_of_a_bad_spec(spec, kind, message):
    with pytest.raises(errors.InputError) as caught:
        resolve(spec)
    assert type(caught.value) is kind
    assert str(caught.value) == message


@pytest.mark.parametrize("word", ["1" * 19, "9" * 5000, "1e3", " 1", "+1", "1_0", "\uff11", ""])
def test_odd_numbers_are_not_integers(word):
    with pytest.raises(errors.ShapeError, match="B must be a positive integer"):
        resolve(f"gmm:{word}x4x4x4")


def test_absurd_shape_says_what_it_needs_and_what_there_is(monkeypatch):
    class Memory:
        available = 3 * 2**30

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(errors.MemoryLimitError) as caught:
        resolve("gmm:1x100000x100000x100000")
    assert str(caught.value) == (
        "gmm:1x100000x100000x100000 needs 521.5 GiB of memory (two sets of inputs, outputs, their "
        "float64 reference and working copies), but 3.0 GiB are available; choose a smaller shape "
        "or free memory"
    )


def test_padding_counts_as_memory():
    with pytest.raises(errors.MemoryLimitError):
        resolve("c2d:1x1x1x1x1x1x1000000x500000")


def test_task_checks_memory_itself():
    task = resolve("gmm:1x4x4x4")
    task.check_memory()
    needed = needed_bytes(task.arguments)
    # Two inputs and one output of 16 elements; the inputs once more as scratch.
    assert needed == 2 * 16 * (8 + 8) + 16 * (8 + 16) + 2 * 16 * (4 + 8)
    task.check_memory(needed)
    with pytest.raises(errors.MemoryLimitError, match=r"^gmm:1x4x4x4 needs 1\.2 KiB"):
        task.check_memory(needed - 1)


def test_sizes_for_people():
    assert human_bytes(0) == "0 B"
    assert human_bytes(1023) == "1023 B"
    assert human_bytes(1536) == "1.5 KiB"
    assert human_bytes(1024**6 * 5000) == "5000.0 EiB"
    assert needed_bytes([Argument("x", (2,), "float64", True)], 0) == 2 * (16 + 16)


def test_listing_needs_no_tvm():
    code = (
        "import sys, schedenv.tasks as t; t.list_operators(); t.members('core'); "
        "sys.exit('tvm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
