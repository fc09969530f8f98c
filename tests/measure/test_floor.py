"""The time below which a measurement cannot be true."""

import pytest

from schedenv.calibration import peaks
from schedenv.hardware import Hardware
from schedenv.measure.floor import floor_s
from schedenv.tasks import resolve


def test_a_product_takes_at_least_a_third_of_its_operations_at_the_peak(hardware: Hardware) -> None:
    task = resolve("gmm:1x512x512x512")
    machine = peaks(hardware)
    assert floor_s(task, machine) == pytest.approx(task.flops / machine.flops_per_s / 3)


def test_a_task_of_few_operations_must_still_move_its_bytes(hardware: Hardware) -> None:
    task = resolve("nrm:1x256x256")
    machine = peaks(hardware)
    assert task.flops < task.bytes / 2
    assert floor_s(task, machine) == pytest.approx(task.bytes / 2 / machine.flops_per_s / 3)


def test_operations_that_a_compiler_may_skip_are_no_bound(hardware: Hardware) -> None:
    """Three quarters of a transposed convolution's products are with inserted zeros."""
    task = resolve("t2d:1x4x4x512x256x4x2x1")
    machine = peaks(hardware)
    assert floor_s(task, machine) == pytest.approx(task.bytes / 2 / machine.flops_per_s / 3)
