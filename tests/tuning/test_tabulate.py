"""From kernels timed in turn to a table."""

from collections.abc import Mapping

import numpy as np
import pytest

from schedenv.errors import MachineError
from schedenv.measure import Phases, Result, Status, robust_estimate
from schedenv.space import Point
from schedenv.tuning.groups import Group
from schedenv.tuning.tabulate import (
    Estimate,
    estimates_of,
    find_optimum,
    leaders,
    make_rows,
    plain_reason,
)

ROUNDS = 40
FINAL = 3


def point(number: int) -> Point:
    return Point(0, (number,))


def result(number: int, code: str | None = None, *, repeated: bool = False) -> Result:
    return Result(
        point=point(number),
        status=Status.OK,
        samples_s=(1e-6,),
        estimate_s=1e-6,
        program=f"program {number}",
        code=code or f"code {number}",
        repeated=repeated,
        phases=Phases(apply_s=0.001) if repeated else Phases(build_s=0.3),
    )


def failed(number: int) -> Result:
    return Result(point=point(number), status=Status.CRASH, reason="worker died")


def group(turn: int, true_s: Mapping[int, float], slowness: float, seed: int) -> Group:
    """Kernels timed in turn: every round has its own weather, every group its own slowness."""
    rng = np.random.default_rng(seed)
    weather = slowness * np.exp(np.abs(rng.normal(0, 1, ROUNDS)))
    return Group(
        turn,
        {
            str(point(number)): tuple(
                latency_s * w * float(1 + rng.random() / 1000) for w in weather
            )
            for number, latency_s in true_s.items()
        },
    )


TRUE_S = {number: 1e-6 * (1 + number / 20) for number in range(1, 13)}


def test_groups_at_different_moments_agree_once_the_references_have_linked_them() -> None:
    references = [point(1), point(2)]
    first = {number: TRUE_S[number] for number in (1, 2, 3, 4, 5, 6)}
    second = {number: TRUE_S[number] for number in (1, 2, 7, 8, 9, 10)}
    groups = [
        group(turn, members, slowness, seed)
        for seed, (turn, members, slowness) in enumerate(
            [(0, first, 1.0), (0, second, 9.0), (1, second, 2.0), (1, first, 30.0)]
        )
    ]
    estimates = estimates_of(groups, references, FINAL)
    assert set(estimates) == {point(n) for n in range(1, 11)}
    ratios = [estimates[point(n)].latency_s / TRUE_S[n] for n in range(1, 11)]
    assert max(ratios) / min(ratios) < 1.01
    for number in range(3, 11):
        found = estimates[point(number)]
        assert len(found.looks_s) == 2
        assert found.low_s <= found.latency_s <= found.high_s < 1.01 * found.low_s
        assert robust_estimate(found.samples_s) == pytest.approx(found.latency_s, rel=0.02)
        assert len(found.samples_s) == 12


def test_seconds_are_those_of_a_good_quarter_of_the_groups() -> None:
    steady = {str(point(1)): (1e-6,) * 8, str(point(2)): (3e-6,) * 8}
    groups = [
        Group(0, {text: tuple(s * slowness for s in taken) for text, taken in steady.items()})
        for slowness in (4.0, 2.0, 2.0, 2.0, 8.0)
    ]
    estimates = estimates_of(groups, [point(1)], FINAL)
    assert estimates[point(1)].latency_s == pytest.approx(2e-6)
    assert estimates[point(2)].latency_s == pytest.approx(6e-6)


def test_the_median_look_is_the_estimate_and_the_others_its_interval() -> None:
    groups = [
        Group(turn, {str(point(1)): (1e-6,) * 4, str(point(2)): (latency_s,) * 4})
        for turn, latency_s in enumerate((3e-6, 90e-6, 4e-6))
    ]
    found = estimates_of(groups, [point(1)], FINAL)[point(2)]
    assert (found.low_s, found.latency_s, found.high_s) == pytest.approx((3e-6, 4e-6, 90e-6))
    assert found.looks_s == pytest.approx((3e-6, 90e-6, 4e-6))
    assert found.samples_s == pytest.approx((4e-6,) * 4)


def test_finalists_are_judged_by_their_last_turns_alone() -> None:
    lucky = [Group(t, {str(point(1)): (1e-6,) * 4, str(point(2)): (2e-6,) * 4}) for t in range(3)]
    final = [Group(t, {str(point(1)): (1e-6,) * 4, str(point(2)): (5e-6,) * 4}) for t in (3, 4)]
    found = estimates_of([*lucky, *final], [point(1)], FINAL)[point(2)]
    assert found.latency_s == pytest.approx(5e-6)
    assert found.low_s == pytest.approx(5e-6)
    assert found.looks_s == pytest.approx((2e-6, 2e-6, 2e-6, 5e-6, 5e-6))


def test_a_kernel_too_slow_for_every_round_is_estimated_from_the_samples_it_has() -> None:
    samples = {str(point(1)): (1e-6,) * 20, str(point(2)): (5e-3,) * 4}
    assert estimates_of([Group(0, samples)], [point(1)], FINAL)[point(2)].latency_s == (
        pytest.approx(5e-3)
    )


def test_a_group_without_a_reference_cannot_be_compared() -> None:
    groups = [Group(0, {str(point(1)): (1e-6,) * 4}), Group(0, {})]
    with pytest.raises(MachineError) as raised:
        estimates_of(groups, [point(1)], FINAL)
    assert str(raised.value) == (
        "no reference kernel could be timed in one of the groups, though all had worked before; "
        "run again on a quieter machine: schedenv doctor --noise"
    )


# -- rows -------------------------------------------------------------------------------------


def simple(latency_s: float, spread: float = 0.0) -> Estimate:
    low_s, high_s = latency_s * (1 - spread), latency_s * (1 + spread)
    return Estimate(latency_s, low_s, high_s, (latency_s,), (latency_s,))


def test_the_numbers_of_equal_code_come_from_the_point_that_was_built() -> None:
    looks = {
        point(3): [result(3, "code 1", repeated=True)],
        point(1): [result(1)],
        point(2): [failed(2), failed(2)],
    }
    assert leaders(looks) == {point(n): point(n) for n in (1, 2)} | {point(3): point(1)}


def test_points_of_one_program_and_of_equal_code_share_their_numbers() -> None:
    looks = {
        point(1): [result(1)],
        point(3): [result(3, "code 1", repeated=True)],
        point(4): [failed(4), failed(4)],
        point(5): [result(5)],
    }
    rows = make_rows(
        [point(n) for n in (1, 2, 3, 4, 5)],
        lambda p: point(1) if p == point(2) else p,
        looks,
        {point(1): simple(2e-6)},
        {point(1)},
    )
    assert [row.point for row in rows] == [point(n) for n in (1, 2, 3, 4, 5)]
    assert [row.program for row in rows[:4]] == ["program 1", "program 1", "program 3", None]
    assert len({(row.estimate_s, row.samples_s, row.phases) for row in rows[:3]}) == 1
    assert [row.finalist for row in rows] == [True, True, True, False, False]
    assert (rows[3].status, rows[3].reason) == (Status.CRASH, "worker died")
    assert rows[3].estimate_s is None
    assert (rows[4].status, rows[4].reason) == (
        Status.RUN_ERROR,
        "worked once, but not when it was timed again",
    )


def test_the_optimum_is_tied_with_all_whose_intervals_overlap_its_own() -> None:
    looks = {point(n): [result(n)] for n in (1, 2, 3)} | {point(4): [failed(4)]}
    estimates = {point(1): simple(1e-6, 0.3), point(2): simple(1.4e-6, 0.2)}
    estimates |= {point(3): simple(1.6e-6, 0.1)}
    rows = make_rows(list(looks), lambda p: p, looks, estimates, [])
    optimum = find_optimum(rows)
    assert optimum is not None
    assert optimum.point == "0:1"
    assert optimum.ties == ("0:1", "0:2")
    assert not optimum.is_finalist
    assert find_optimum([rows[3]]) is None


@pytest.mark.parametrize(
    ("reason", "plain"),
    [
        ("expected 3, got 4\nTraceback: ...", "expected 3, got 4"),
        ("\n  File /home/ann/build/src/tir.cc: no", "  File tir.cc: no"),
        ("a\x1b[31mb", "a [31mb"),
        ("x" * 300, "x" * 200),
        ("", ""),
    ],
)
def test_a_reason_is_shipped_without_folders_and_control_characters(
    reason: str, plain: str
) -> None:
    assert plain_reason(reason) == plain
