"""Best-so-far, scores, and when a quality was reached."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedenv.comparison.attempts import Confirmed, Facts, Finals
from schedenv.comparison.scores import Axis, Field, latency_at, moment_of, put_to_scale

from .helpers import attempt

FACT = Facts("t", untuned_s=8.0, best_s=1.0)


def test_the_best_so_far_is_the_untuned_program_until_something_better_is_known() -> None:
    one = attempt("a", (1.0, 2, 9.0), (3.0, 5, 4.0), (6.0, 9, 2.0))
    at = [latency_at(one, FACT, Axis.SECONDS, s) for s in (0.0, 1.0, 2.9, 3.0, 5.9, 6.0, 99.0)]
    assert at == [8.0, 8.0, 8.0, 4.0, 4.0, 2.0, 2.0]
    assert [latency_at(one, FACT, Axis.TRIALS, t) for t in (4, 5, 9)] == [8.0, 4.0, 2.0]
    assert latency_at(attempt("a"), FACT, Axis.TRIALS, 99) == 8.0


def test_a_quality_is_reached_with_the_first_improvement_that_has_it() -> None:
    one = attempt("a", (1.0, 2, 5.0), (3.0, 5, 4.0))
    assert moment_of(one, FACT, Axis.SECONDS, 4.5) == 3.0
    assert moment_of(one, FACT, Axis.TRIALS, 5.0) == 2
    assert moment_of(one, FACT, Axis.TRIALS, 3.9) == np.inf
    assert moment_of(one, FACT, Axis.TRIALS, 8.0) == 0.0


@given(st.lists(st.tuples(st.floats(0.01, 9), st.integers(1, 20), st.floats(0.5, 9)), max_size=6))
def test_whoever_reaches_a_latency_has_it_from_then_on(steps: list) -> None:
    seconds, trials = sorted(s for s, _, _ in steps), sorted(t for _, t, _ in steps)
    latencies = sorted((b for _, _, b in steps), reverse=True)
    one = attempt("a", *zip(seconds, trials, latencies, strict=True))
    for axis in Axis:
        for target_s in (8.0, 4.0, 1.0):
            moment = moment_of(one, FACT, axis, target_s)
            if moment < np.inf:
                assert latency_at(one, FACT, axis, moment) <= target_s
            else:
                assert latency_at(one, FACT, axis, np.inf) > target_s


def test_scores_are_of_the_seeds_that_all_have_finished() -> None:
    attempts = [
        attempt("a", (1.0, 1, 2.0), seed=0),
        attempt("b", (1.0, 1, 4.0), seed=0),
        attempt("a", (1.0, 1, 1.0), seed=1),
        attempt("a", (1.0, 1, 1.0), task="lonely"),
    ]
    field = Field.of(("a", "b"), [FACT, Facts("lonely", 8.0, 1.0)], attempts)
    assert [fact.title for fact in field.facts] == ["t"]
    assert [list(scores) for scores in field.scores("a", Axis.TRIALS, 5)] == [[0.5]]
    assert [list(scores) for scores in field.scores("b", Axis.TRIALS, 5)] == [[0.25]]
    assert [list(scores) for scores in field.scores("b", Axis.TRIALS, 0)] == [[0.125]]


def test_reaching_compares_attempts_of_one_seed() -> None:
    attempts = [
        attempt("slow", (1.0, 1, 6.0), (8.0, 16, 2.0), seed=0),
        attempt("fast", (2.0, 4, 2.0), seed=0),
        attempt("slow", (4.0, 8, 3.0), seed=1),
        attempt("fast", (1.0, 2, 3.5), seed=1),
        attempt("slow", seed=2),
        attempt("fast", (1.0, 2, 3.5), seed=2),
    ]
    field = Field.of(("slow", "fast"), [FACT], attempts)
    found = field.reaching("fast", "slow", Axis.SECONDS)
    # Four times sooner; never, so its ten seconds count; and the untuned program is everybody's.
    assert [list(ratios) for ratios in found.ratios] == [[4.0, 0.4, 1.0]]
    assert found.share == pytest.approx(2 / 3)
    own = field.reaching("slow", "slow", Axis.TRIALS)
    assert [list(ratios) for ratios in own.ratios] == [[1.0, 1.0, 1.0]]
    assert own.share == 1


def test_curves_are_put_to_the_scale_of_the_finals() -> None:
    believed = attempt("lucky", (1.0, 1, 4.0), (2.0, 2, 1.0))
    hopeless = attempt("hopeless", (1.0, 1, 4.0))
    unjudged = attempt("unjudged", (1.0, 1, 4.0), seed=5)
    finals = Finals(
        "t", 8.0, (Confirmed("lucky", 0, "0:1", 2.0, 1.9, 2.1),
                   Confirmed("hopeless", 0, None, 8.0, 8.0, 8.0)),
    )  # fmt: skip
    scaled = put_to_scale([believed, hopeless, unjudged], {"t": finals})
    assert [one.agent for one in scaled] == ["lucky", "hopeless"]
    assert scaled[0].curve == ((1.0, 1, 8.0), (2.0, 2, 2.0))
    assert scaled[1].curve == ()
