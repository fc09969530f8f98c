"""Tasks from a user's Python file."""

import numpy as np
import pytest

from schedenv import errors
from schedenv.tasks import resolve

PROGRAM = """
from tvm import te

CONSTANT = 3


def rowsum():
    a = te.placeholder((4, 6, 5), name="a")
    i, j = te.reduce_axis((0, 6)), te.reduce_axis((0, 5))
    return [a, te.compute((4,), lambda b: te.sum(a[b, i, j], axis=[i, j]), name="b")]


def rowsum_reference(inputs):
    return [inputs[0].sum(axis=(1, 2))]

def dynamic():
    n = te.var("n")
    a = te.placeholder((n, 4), name="a")
    return [a, te.compute((n, 4), lambda i, j: a[i, j] * 2.0, name="b")]


def integers():
    a = te.placeholder((4,), name="a", dtype="int8")
    return [a, te.compute((4,), lambda i: a[i] * 2, name="b")]


def huge():
    a = te.placeholder((2**30,), name="a")
    return [a, te.compute((2**30,), lambda i: a[i] * 2, name="b")]


def no_output():
    return [te.placeholder((4,), name="a")]


def no_input():
    a = te.placeholder((4,), name="a")
    return [te.compute((4,), lambda i: a[i] * 2.0, name="b")]


def needs(n, m=1):
    return None


def fails():
    return 1 / CONSTANT.missing


def nothing():
    pass


def numbers():
    return [1, 2.0]
"""

# Apart from the others, because TVM takes a quarter of a second to parse each.
SCRIPT = """
from tvm.script import ir as I
from tvm.script import tirx as T


@T.prim_func(s_tir=True)
def double(X: T.Buffer((4,), "float32"), Y: T.Buffer((4,), "float32")):
    for i in range(4):
        with T.sblock("Y"):
            v = T.axis.remap("S", [i])
            Y[v] = X[v] * T.float32(2)


double_reference = "not a function"


@I.ir_module
class Module:
    @T.prim_func(s_tir=True)
    def anything(X: T.Buffer((4,), "float32"), Y: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("Y"):
                v = T.axis.remap("S", [i])
                Y[v] = X[v] * T.float32(2)


@I.ir_module
class Two:
    @T.prim_func(s_tir=True)
    def f(X: T.Buffer((4,), "float32")):
        T.evaluate(0)

    @T.prim_func(s_tir=True)
    def g(X: T.Buffer((4,), "float32")):
        T.evaluate(0)


def make_double():
    return Module["anything"]


@T.prim_func
def no_block(X: T.Buffer((4,), "float32"), Y: T.Buffer((4,), "float32")):
    for i in range(4):
        Y[i] = X[i] * T.float32(2)


@T.prim_func(s_tir=True)
def in_place(X: T.Buffer((4,), "float32")):
    for i in range(4):
        with T.sblock("Y"):
            v = T.axis.remap("S", [i])
            X[v] = X[v] * T.float32(2)


@T.prim_func(s_tir=True)
def scalar(X: T.Buffer((4,), "float32"), s: T.float32, Y: T.Buffer((4,), "float32")):
    for i in range(4):
        with T.sblock("Y"):
            v = T.axis.remap("S", [i])
            Y[v] = X[v] * s
"""

EXPECTED = (
    "a PrimFunc, an IRModule with one PrimFunc, or a function without arguments that returns "
    "a list of TE tensors (inputs, then outputs) or a PrimFunc"
)


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(PROGRAM)
    (tmp_path / "s.py").write_text(SCRIPT)
    return tmp_path / "s.py"


def message_of(spec):
    with pytest.raises(errors.ProgramFileError) as caught:
        resolve(spec)
    return str(caught.value)


def test_te_function_with_a_reference(program):
    task = resolve("p.py:rowsum")
    assert (task.spec, task.name, task.family) == ("p.py:rowsum", "p.py:rowsum", "program")
    assert (task.flops, task.bytes, task.reduction_length) == (120.0, 4 * 124, 30)
    assert [arg.is_output for arg in task.arguments] == [False, True]
    np.testing.assert_array_equal(task.reference([np.ones((4, 6, 5))])[0], np.full(4, 30.0))


def test_prim_func_module_and_maker_are_one_program(program):
    task = resolve("s.py:Module")
    assert task == resolve(f"{program}:make_double")
    assert task.reference is None
    assert task.reduction_length == 1


def test_edited_file_is_read_again(program):
    before = resolve("s.py:Module")
    program.write_text(SCRIPT.replace("T.float32(2)", "T.float32(3)"))
    assert resolve("s.py:Module") != before


def test_program_may_import_its_neighbours(program, tmp_path):
    (tmp_path / "schedenv_test_neighbour.py").write_text("EXTENT = 8\n")
    (tmp_path / "q.py").write_text(
        "from tvm import te\n"
        "from schedenv_test_neighbour import EXTENT\n"
        "def f():\n"
        "    a = te.placeholder((EXTENT,), name='a')\n"
        "    return [a, te.compute((EXTENT,), lambda i: a[i] + 1.0, name='b')]\n"
    )
    assert resolve("q.py:f").arguments[0].shape == (8,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scaler", "the file 's.py' does not define 'scaler'; did you mean 'scalar'?"),
        ("CONSTANT", f"expected {EXPECTED}; got an object of type int"),
        ("nothing", f"expected {EXPECTED}; got nothing"),
        ("numbers", f"expected {EXPECTED}; got a list of float, int"),
        (
            "Two",
            "expected an IRModule with exactly one PrimFunc, got 2 functions; put the one to tune "
            "in a module of its own",
        ),
        ("needs", "the function must work without arguments, but needs n; give them defaults"),
        (
            "fails",
            "calling the function failed at line LINE: AttributeError: "
            "'int' object has no attribute 'missing'",
        ),
        (
            "no_block",
            "TVM finds no blocks to schedule in this program; in TVMScript decorate it with "
            "@T.prim_func(s_tir=True) and wrap each computation in T.sblock "
            "(ScheduleError: An error occurred in the schedule primitive 'get-block'.)",
        ),
        (
            "in_place",
            "the buffer 'X' is read before it is written; programs that work in place are not "
            "supported: write to another buffer",
        ),
        (
            "scalar",
            "the parameter 's' is not a buffer; only buffers are supported: make it a constant or "
            "a buffer of shape (1,)",
        ),
        (
            "dynamic",
            "the shape of 'a' depends on n; dynamic shapes are not supported: give every extent "
            "as a number",
        ),
        (
            "integers",
            "the buffer 'a' has the unsupported dtype 'int8'; expected float32 or float64",
        ),
        (
            "no_output",
            "the program has no output: none of its parameters is written; list the result last",
        ),
        (
            "no_input",
            "the result needs the placeholder 'a', which is not in the list; return every input, "
            "then every output",
        ),
        (
            "double",
            "double_reference must be a function from a list of arrays to a list of arrays; "
            "got an object of type str",
        ),
    ],
)
def test_message_of_a_bad_program(program, name, message):
    line = PROGRAM.splitlines().index("    return 1 / CONSTANT.missing") + 1
    file = "p.py" if f"def {name}(" in PROGRAM or f"{name} =" in PROGRAM else "s.py"
    assert message_of(f"{file}:{name}") == f"{file}:{name}: " + message.replace("LINE", str(line))


def test_too_large_a_program(program, monkeypatch):
    class Memory:
        available = 2**30

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    with pytest.raises(errors.MemoryLimitError, match=r"^p\.py:huge needs 52\.0 GiB of memory"):
        resolve("p.py:huge")


@pytest.mark.parametrize("spec", ["p.py", "p.py:", "p.py:1a"])
def test_no_function_named(spec):
    assert message_of(spec) == (
        f"{spec!r} names no function; write the file, a colon and the function's name, "
        f"for example 'p.py:main'"
    )


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message_of("none.py:f") == (
        f"none.py:f: there is no file 'none.py' in {tmp_path}; check the path before the colon"
    )
    assert message_of(r"C:\none.py:f").startswith(r"C:\none.py:f: there is no file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import math\n\nimport schedenv_no_such\n",
            "at line 3: ModuleNotFoundError: No module named 'schedenv_no_such'",
        ),
        ("x = 1\ndef f(:\n", "at line 2: SyntaxError: invalid syntax (b.py, line 2)"),
        ("raise SystemExit(3)\n", "at line 1: SystemExit: 3"),
        ("assert False\n", "at line 1: AssertionError: AssertionError"),
    ],
)
def test_file_that_cannot_be_imported(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.py").write_text(text)
    assert message_of("b.py:f") == "b.py:f: importing the file failed " + message


def test_file_without_programs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.py").write_text("from math import sqrt\n")
    assert message_of("e.py:f") == (
        f"e.py:f: the file 'e.py' does not define 'f', nor any other program; define {EXPECTED}"
    )


def test_reference_that_fails_or_returns_no_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.py").write_text(
        "from tvm import te\n"
        "def f():\n"
        "    a = te.placeholder((4,), name='a')\n"
        "    return [a, te.compute((4,), lambda i: a[i] + 1.0, name='b')]\n"
        "g = f\n"
        "def f_reference(inputs):\n"
        "    return inputs[1]\n"
        "def g_reference(inputs):\n"
        "    return inputs[0]\n"
    )
    with pytest.raises(errors.ProgramFileError) as caught:
        resolve("r.py:f").reference([np.ones(4)])
    assert str(caught.value) == (
        "r.py:f: calling its reference failed at line 7: IndexError: list index out of range"
    )
    with pytest.raises(errors.ProgramFileError) as caught:
        resolve("r.py:g").reference([np.ones(4)])
    assert str(caught.value) == (
        "r.py:g: its reference must return a list of arrays, one an output; "
        "got an object of type ndarray"
    )
