"""From looks to a table."""

import numpy as np
import pytest

from schedenv.measure import Phases, Result, Status, robust_estimate
from schedenv.space import Point
from schedenv.tuning.tabulate import (
    Estimate,
    estimates_of,
    find_optimum,
    make_rows,
    pass_scales,
    plain_reason,
    settle_final_turn,
    status_of,
    with_final_turns,
)


def point(number: int) -> Point:
    return Point(0, (number,))


def look(number: int, latency_s: float, slowness: float = 1.0, **more: object) -> Result:
    """A look in a pass whose estimates are all off by a factor."""
    samples_s = (latency_s,) * 4
    return Result(
        point=point(number),
        status=Status.OK,
        samples_s=samples_s,
        drifts=(1 / slowness,) * 4,
        estimate_s=latency_s * slowness,
        program=f"program {number}",
        code=f"code {number}",
        **more,
    )


def failed(number: int, status: Status = Status.CRASH) -> Result:
    return Result(point=point(number), status=status, reason="worker died")


def simple(latency_s: float) -> Estimate:
    return Estimate(latency_s, latency_s, latency_s, (latency_s,), (latency_s,))


def test_passes_are_scaled_to_each_other() -> None:
    truth = {number: 1e-6 * number for number in range(1, 9)}
    looks = {
        point(n): [look(n, s, 1.0), look(n, s, 20.0), look(n, s, 0.05)] for n, s in truth.items()
    }
    scales = pass_scales(looks, 3)
    assert scales == pytest.approx([1.0, 20.0, 0.05])
    estimates = estimates_of(looks, scales)
    for number, latency_s in truth.items():
        found = estimates[point(number)]
        assert found.latency_s == pytest.approx(latency_s)
        assert found.looks_s == pytest.approx((latency_s,) * 3)
        assert robust_estimate(found.samples_s) == pytest.approx(latency_s)


def test_the_median_look_is_the_estimate_and_the_others_its_interval() -> None:
    looks = {point(1): [look(1, 3e-6), look(1, 90e-6), look(1, 4e-6)]}
    estimate = estimates_of(looks, [1.0, 1.0, 1.0])[point(1)]
    assert (estimate.low_s, estimate.latency_s, estimate.high_s) == (3e-6, 4e-6, 90e-6)
    assert estimate.samples_s == (4e-6,) * 4


def test_without_a_candidate_that_always_works_nothing_is_scaled() -> None:
    assert pass_scales({point(1): [look(1, 1e-6), failed(1)]}, 2) == [1.0, 1.0]


def test_a_candidate_ends_as_most_of_its_looks_do() -> None:
    assert status_of([look(1, 1e-6), failed(1), look(1, 1e-6)]) is Status.OK
    assert status_of([look(1, 1e-6), failed(1), failed(1)]) is Status.CRASH
    assert status_of([look(1, 1e-6), failed(1)]) is Status.CRASH


def test_what_slows_a_whole_round_is_divided_out_and_the_anchors_give_the_scale() -> None:
    rng = np.random.default_rng(0)
    true_s = {number: 1e-6 * (1 + number / 50) for number in range(12)}
    weather = np.exp(rng.normal(0, 0.5, 60))
    compared = [
        (look(n, s), [s * w * float(1 + rng.random() / 1000) for w in weather])
        for n, s in true_s.items()
    ]
    # The passes' seconds are twice too long, and the fastest were lucky besides.
    estimates = {point(n): simple(2 * s if n >= 6 else 2 * s / 3) for n, s in true_s.items()}
    anchors = [point(n) for n in range(6, 12)]
    settled, scale = settle_final_turn(compared, estimates, anchors)
    typical = np.quantile(weather, 0.25)
    assert scale == pytest.approx(typical / 2, rel=0.1)
    improved = with_final_turns(estimates, [settled, settled])
    for number, latency_s in true_s.items():
        assert improved[point(number)].latency_s == pytest.approx(2 * latency_s, rel=0.02)
        assert improved[point(number)].high_s / improved[point(number)].low_s < 1.01
    assert improved[point(0)].looks_s[0] == estimates[point(0)].latency_s


def test_a_finalist_that_fails_keeps_its_earlier_estimate() -> None:
    estimates = {point(n): simple(1e-6 * n) for n in (1, 2, 3)}
    compared = [(look(1, 1e-6), [1e-6] * 8), (failed(2), []), (look(3, 3e-6), [3e-6] * 3)]
    settled, _ = settle_final_turn(compared, estimates, [])
    assert list(settled) == [point(1)]
    assert with_final_turns(estimates, [settled])[point(2)] == estimates[point(2)]
    assert settle_final_turn([(failed(2), [])], estimates, []) == ({}, 1.0)


def test_points_of_one_program_and_of_equal_code_share_their_numbers() -> None:
    twin = look(3, 9e-6, repeated=True, phases=Phases(apply_s=0.001))
    twin = Result(**{**{f: getattr(twin, f) for f in twin.__struct_fields__}, "code": "code 1"})
    looks = {
        point(1): [look(1, 1e-6, phases=Phases(build_s=0.3))],
        point(3): [twin],
        point(4): [failed(4)],
    }
    estimates = estimates_of(looks, [1.0])
    rows = make_rows(
        [point(n) for n in (1, 2, 3, 4)],
        lambda p: point(1) if p == point(2) else p,
        looks,
        estimates,
        [point(1)],
    )
    assert [row.point for row in rows] == [point(n) for n in (1, 2, 3, 4)]
    assert [row.program for row in rows] == ["program 1", "program 1", "program 3", None]
    assert len({(row.estimate_s, row.samples_s, row.phases) for row in rows[:3]}) == 1
    assert [row.finalist for row in rows] == [True, True, True, False]
    assert rows[3].status is Status.CRASH
    assert rows[3].reason == "worker died"
    assert rows[3].estimate_s is None


def test_the_optimum_is_tied_with_all_whose_intervals_overlap_its_own() -> None:
    looks = {point(n): [look(n, 1e-6 * n)] for n in (1, 2, 3)} | {point(4): [failed(4)]}
    estimates = {
        point(1): Estimate(1e-6, 0.9e-6, 1.3e-6, (1e-6,), (1e-6,)),
        point(2): Estimate(1.4e-6, 1.2e-6, 1.5e-6, (1.4e-6,), (1.4e-6,)),
        point(3): Estimate(1.6e-6, 1.5e-6, 1.7e-6, (1.6e-6,), (1.6e-6,)),
    }
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
