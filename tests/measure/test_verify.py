"""What counts as a right result."""

import math
from pathlib import Path

import numpy as np
import pytest

from schedenv.measure import verify


def product(seed: int, extent: int) -> tuple[verify.Array, verify.Array, verify.Array]:
    """Two float32 matrices and their product in float64."""
    left, right = verify.random_inputs([(extent, extent)] * 2, ["float32"] * 2, seed)
    return left, right, left.astype(np.float64) @ right.astype(np.float64)


@pytest.mark.parametrize("extent", [32, 1024])
def test_a_float32_product_is_right_and_far_from_the_limit(extent: int) -> None:
    left, right, expected = product(0, extent)
    tolerated = verify.tolerance("float32", extent)
    assert verify.deviation([left @ right], [expected], tolerated) < 0.5


@pytest.mark.parametrize("extent", [32, 1024])
def test_a_product_summed_one_term_at_a_time_in_float32_is_right(extent: int) -> None:
    left, right, expected = product(0, extent)
    total = np.zeros_like(left)
    for k in range(extent):
        total += left[:, k : k + 1] * right[k]
    assert verify.deviation([total], [expected], verify.tolerance("float32", extent)) < 1


@pytest.mark.parametrize("extent", [32, 1024])
def test_a_product_that_lacks_one_term_is_wrong(extent: int) -> None:
    left, right, expected = product(0, extent)
    short = left[:, :-1] @ right[:-1]
    assert verify.deviation([short], [expected], verify.tolerance("float32", extent)) > 100


@pytest.mark.parametrize("extent", [32, 1024])
def test_a_single_element_that_lacks_one_term_is_wrong(extent: int) -> None:
    left, right, expected = product(0, extent)
    actual = left @ right
    actual[3, 5] -= left[3, 7] * right[7, 5]
    assert verify.deviation([actual], [expected], verify.tolerance("float32", extent)) > 10


def test_an_element_never_written_is_infinitely_wrong() -> None:
    expected = np.ones((4, 4))
    actual = np.ones((4, 4), np.float32)
    actual[2, 3] = np.nan
    assert verify.deviation([actual], [expected], 1e-5) == math.inf


def test_an_infinite_element_is_infinitely_wrong() -> None:
    assert verify.deviation([np.array([1, np.inf])], [np.array([1.0, 2.0])], 1e-5) == math.inf


def test_the_worst_output_decides() -> None:
    expected = [np.ones(3), np.full(3, 2.0)]
    actual = [np.ones(3), np.full(3, 2.2)]
    assert verify.deviation(actual, expected, 0.05) == pytest.approx(2.0)


def test_deviation_is_relative_to_the_largest_expected_value() -> None:
    expected, actual = np.array([100.0, 0.0]), np.array([100.0, 0.1])
    assert verify.deviation([actual], [expected], 1e-3) == pytest.approx(1.0)


def test_an_expected_output_of_zeros_still_has_a_scale() -> None:
    assert verify.deviation([np.zeros(3)], [np.zeros(3)], 1e-5) == 0
    assert verify.deviation([np.full(3, 1e-3)], [np.zeros(3)], 1e-5) > 1


def test_outputs_that_are_missing_are_an_error_not_a_pass() -> None:
    with pytest.raises(ValueError, match="zip"):
        verify.deviation([], [np.ones(3)], 1e-5)


def test_the_tolerance_grows_with_the_root_of_the_reduction_and_with_the_type() -> None:
    eps = float(np.finfo(np.float32).eps)
    assert verify.tolerance("float32", 1) == pytest.approx(20 * eps)
    assert verify.tolerance("float32", 1024) == pytest.approx((16 + 4 * 32) * eps)
    assert verify.tolerance("float64", 64) < verify.tolerance("float32", 64) / 1e8
    assert verify.tolerance("float16", 64) > verify.tolerance("float32", 64) * 1e3


def test_random_inputs_have_both_signs_and_depend_on_the_seed_alone() -> None:
    first, second = (verify.random_inputs([(50, 3)], ["float32"], seed)[0] for seed in (1, 2))
    again = verify.random_inputs([(50, 3)], ["float32"], 1)[0]
    assert first.dtype == np.float32
    assert first.min() < -0.5 < 0.5 < first.max() < 1
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_verification_data_survives_the_disk(tmp_path: Path) -> None:
    left, right, expected = product(3, 8)
    sets = [([left, right], [expected]), ([right, left], [expected.T])]
    verify.VerificationData.write(tmp_path, 0.25, sets)
    data = verify.VerificationData(tmp_path)
    assert data.tolerated == 0.25
    for (inputs, outputs), (read_inputs, read_outputs) in zip(sets, data.sets, strict=True):
        assert all(map(np.array_equal, inputs, read_inputs))
        assert all(map(np.array_equal, outputs, read_outputs))
        assert len(read_inputs) == 2
        assert len(read_outputs) == 1
