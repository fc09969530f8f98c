"""Vendors' kernels: they compute what the tasks compute, and are timed beside the finalists."""

import json
from pathlib import Path

import numpy as np
import pytest

from schedenv.baselines import vendor
from schedenv.baselines.vendor import vendor_lines
from schedenv.baselines.vendor_kernels import FAMILIES, LIBRARIES, make_kernel
from schedenv.errors import MissingExtraError
from schedenv.hardware import Hardware
from schedenv.measure.verify import deviation, random_inputs, tolerance
from schedenv.space import Space
from schedenv.tasks import Task, resolve
from schedenv.tasks.families import OPERATORS

SHAPES = {
    "gmm": "2x5x7x9",
    "c1d": "1x12x3x5x3x2x1",
    "c2d": "1x9x8x4x6x3x2x1",
    "c3d": "1x5x6x7x3x4x3x1x1",
    "grp": "1x6x6x8x4x3x1x1x1x2",
    "dil": "1x9x9x4x6x3x1x2x2",
    "dep": "1x8x9x6x3x2x1",
    "t2d": "1x4x5x6x3x4x2x1",
    "nrm": "3x8x6",
    "sfm": "5x12",
    "cbr": "1x6x6x4x6x3x1x1",
    "tbg": "2x5x3x4",
}


def test_every_family_but_capsules_has_a_vendor() -> None:
    assert set(SHAPES) == FAMILIES == set(OPERATORS) - {"cap"}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("family", sorted(SHAPES))
def test_a_vendors_kernel_computes_what_the_task_computes(library: str, family: str) -> None:
    pytest.importorskip(library)
    operator, shape = OPERATORS[family], SHAPES[family]
    layout, values = operator.plan(shape), operator.parse(shape)
    inputs = random_inputs(layout.inputs, ["float32"] * len(layout.inputs), seed=3)
    keywords = {keyword: values[name] for keyword, name in operator.reference_keywords}
    expected = operator.reference([array.astype(np.float64) for array in inputs], **keywords)
    kernel = make_kernel(library, family, shape, inputs, threads=1)
    kernel.run()
    assert kernel.output().shape == layout.output
    tolerated = tolerance("float32", layout.reduction_length)
    assert deviation([kernel.output()], expected, tolerated) <= 1.0


def test_torch_goes_on_computing_gradients_afterwards() -> None:
    torch = pytest.importorskip("torch")
    inputs = random_inputs([(1, 4, 4)] * 2, ["float32"] * 2, seed=3)
    make_kernel("torch", "gmm", "1x4x4x4", inputs, threads=1).run()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("cap:1x4x4x2x2x3x1x1", "no library has a kernel for cap"),
        (
            "gmm:1x8x8x8@float64",
            "vendors' kernels are timed in float32, the task is in float64",
        ),
    ],
)
def test_a_task_without_a_vendor_gets_no_line_and_a_reason(
    spec: str, reason: str, hardware: Hardware
) -> None:
    found = vendor_lines(resolve(spec), hardware)
    assert found.lines == {}
    assert set(found.absent) == set(LIBRARIES)
    assert reason in found.absent.values()


def test_without_any_library_the_extra_is_named(
    tiny_task: Task, hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as raised:
        vendor_lines(tiny_task, hardware)
    assert str(raised.value) == (
        "timing vendors' kernels needs the package 'onnxruntime', which is not installed; "
        "run: pip install 'schedenv[vendor]'"
    )


@pytest.mark.slow
def test_vendors_and_finalists_are_timed_together(
    tiny_task: Task, tiny_space: Space, hardware: Hardware
) -> None:
    points = [tiny_space.default(0), tiny_space.default(1)]
    found = vendor_lines(tiny_task, hardware, points)
    assert list(found.finalists) == points
    assert {name.split()[0] for name in found.lines} | set(found.absent) == set(LIBRARIES)
    for timing in [*found.lines.values(), *found.finalists.values()]:
        assert 0 < timing.low_s <= timing.latency_s <= timing.high_s < 1
        assert len(timing.samples_s) >= 4


@pytest.mark.slow
def test_a_library_that_dies_leaves_no_line_but_a_reason(
    tiny_task: Task, hardware: Hardware, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def prepare(task: Task, directory: Path, hardware: Hardware, seed: int) -> None:
        (directory / "meta.json").write_text(json.dumps({"tolerated": 1e-5}))

    monkeypatch.setattr(vendor.reference, "prepare", prepare)
    found = vendor_lines(tiny_task, hardware)
    assert found.lines == {}
    assert all("exited with code 1" in reason for reason in found.absent.values())
