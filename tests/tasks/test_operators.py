"""The operators against TVM: the same suite, the same results."""

import math

import numpy as np
import pytest

from schedenv import tvm_adapter
from schedenv.tasks import OPERATORS, list_operators, resolve

TINY = [
    "gmm:2x5x7x3",
    "c1d:2x9x6x8x3x2x1",
    "c1d:1x11x4x6x3x2x1x2x2",
    "c2d:2x7x6x4x6x3x2x1",
    "c2d:1x9x9x4x6x3x1x2x2x2",
    "c3d:1x4x5x6x2x3x3x2x1",
    "grp:1x6x7x8x4x3x2x1",
    "dil:1x8x7x3x4x3x2x1",
    "dep:2x7x6x5x3x2x1",
    "dep:1x8x8x3x3x1x1x2",
    "t2d:1x4x3x5x2x4x2x1",
    "t2d:1x4x3x2x3x3x1x0",
    "t2d:1x3x4x2x3x5x3x2",
    "cap:2x5x6x2x3x3x2x1",
    "cap:1x5x5x2x3x3x1x1x2",
    "nrm:2x5x7",
    "sfm:5x7",
    "cbr:1x7x6x3x4x3x2x1",
    "tbg:2x5x3x4",
    "gmm:1x4x5x6@float64",
    "c2d:1x5x5x2x3x3x1x1@float64",
    "cbr:1x5x5x2x3x3x1x1@float64",
]


def run_unscheduled(task, inputs):
    """Outputs of the unscheduled program, compiled by TVM."""
    import tvm

    target = tvm_adapter.make_target(tvm_adapter.host_cpu(), 1)
    given = iter(inputs)
    buffers = [
        tvm.runtime.tensor(
            np.full(arg.shape, np.nan, arg.dtype)
            if arg.is_output
            else next(given).astype(arg.dtype)
        )
        for arg in task.arguments
    ]
    tvm_adapter.build(task.mod, target)["main"](*buffers)
    outputs = zip(buffers, task.arguments, strict=True)
    return [buffer.numpy() for buffer, arg in outputs if arg.is_output]


def random_inputs(task):
    rng = np.random.default_rng(7)
    # float32 values, so that both sides compute with the same numbers.
    return [
        rng.standard_normal(arg.shape).astype("float32").astype("float64") for arg in task.inputs
    ]


@pytest.mark.parametrize("spec", TINY)
def test_reference_agrees_with_the_program(spec):
    task = resolve(spec)
    inputs = random_inputs(task)
    expected = task.reference(inputs)
    actual = run_unscheduled(task, inputs)
    assert len(expected) == len(actual) == 1
    assert expected[0].dtype == np.float64
    tolerance = 1e-12 if "@float64" in spec else 1e-4
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance, atol=tolerance)


def test_tiny_shapes_cover_every_family():
    assert {spec.partition(":")[0] for spec in TINY} == set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_suite_equals_the_one_tvm_ships(name):
    define, configs = tvm_adapter.ansor_operators().CONFIGS[name.upper()]
    tasks = [resolve(f"ansor/{name}-{index}") for index in range(4)]
    assert [task.content_hash for task in tasks] == [
        tvm_adapter.structural_hash(tvm_adapter.module_from_tensors(define(*config)))
        for config in configs
    ]


@pytest.mark.parametrize("name", OPERATORS)
def test_layout_agrees_with_the_program(name):
    operator = OPERATORS[name]
    for shape in (*operator.suite, operator.default):
        layout, task = operator.plan(shape), operator.task(shape)
        assert tuple(arg.shape for arg in task.inputs) == layout.inputs
        assert tuple(arg.shape for arg in task.outputs) == (layout.output,)
        assert task.bytes == 4 * (sum(map(math.prod, layout.inputs)) + math.prod(layout.output))
        assert task.intensity == task.flops / task.bytes


@pytest.mark.parametrize("name", OPERATORS)
def test_reduction_length_is_that_of_the_program(name):
    from schedenv.tasks.program_checks import longest_reduction

    task = resolve(f"ansor/{name}-0")
    assert task.reduction_length == longest_reduction(task.mod)


@pytest.mark.parametrize("name", ["gmm", "c1d", "c2d", "c3d", "grp", "dil", "dep", "cap", "tbg"])
def test_flops_are_two_per_multiply_add(name):
    for index in range(4):
        task = resolve(f"ansor/{name}-{index}")
        assert task.flops == 2 * math.prod(task.outputs[0].shape) * task.reduction_length


def test_flops_of_the_remaining_families():
    assert resolve("nrm:2x30x50").flops == 2 * 2 * 30 * 50
    assert resolve("sfm:30x50").flops == 4 * 30 * 50
    # Convolution, then bias, scale, offset and maximum on each output.
    assert resolve("cbr:1x7x7x32x8x3x1x1").flops == 7 * 7 * 8 * (2 * 9 * 32 + 4)


def test_flops_of_a_transposed_convolution_leave_out_the_inserted_zeros():
    task = resolve("ansor/t2d-0")
    assert task.flops == 2 * (4 * 4 * 512) * (4 * 4 * 256)
    assert tvm_adapter.count_flops(task.mod) == 4 * task.flops


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)
def test_references_handle_their_default_shape(operator):
    task = operator.task()
    (output,) = task.reference(random_inputs(task))
    assert output.shape == task.outputs[0].shape
    assert np.isfinite(output).all()


def test_large_convolutions_are_computed_in_parts_without_changing_the_result(monkeypatch):
    from schedenv.tasks import references

    task = resolve("c3d:2x4x6x7x3x5x3x1x1")
    inputs = random_inputs(task)
    (whole,) = task.reference(inputs)
    for elements in (1, 10_000, 50_000):
        monkeypatch.setattr(references, "_PATCH_ELEMENTS", elements)
        np.testing.assert_allclose(task.reference(inputs)[0], whole, rtol=1e-12, atol=1e-12)


def test_rows_for_the_command_line():
    rows = {row.name: row for row in list_operators()}
    assert len(rows) == 13
    assert rows["gmm"].parameters == "BxNxMxK"
    assert rows["c2d"].parameters == "NxHxWxCIxCOxKxSxP[xdilation[xgroups]]"
    assert {row.suite_shapes for row in rows.values()} == {4}
