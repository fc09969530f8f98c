"""Choosing among legal actions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schedenv.training.policy import RandomPolicy, choose


@given(seed=st.integers(0, 2**32 - 1), sample=st.booleans())
def test_only_legal_actions_are_chosen(seed: int, sample: bool) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((16, 7)) < 0.3
    masks[np.arange(16), rng.integers(7, size=16)] = True
    logits = rng.normal(size=(16, 7)).astype(np.float32) * 50
    chosen = choose(logits, masks, rng if sample else None)
    assert masks[np.arange(16), chosen].all()
    if not sample:
        np.testing.assert_array_equal(chosen, np.where(masks, logits, -np.inf).argmax(1))


def test_draws_follow_the_softmax_of_the_legal_logits() -> None:
    logits = np.log(np.tile(np.array([[0.1, 0.3, 0.2, 0.4]], np.float32), (40_000, 1)))
    masks = np.tile(np.array([[True, True, False, True]]), (40_000, 1))
    drawn = choose(logits, masks, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([0.125, 0.375, 0, 0.5]), atol=0.01)


def test_the_random_policy_takes_all_legal_actions_alike() -> None:
    masks = np.tile(np.array([[True, False, True, True]]), (30_000, 1))
    drawn = RandomPolicy().act({}, masks, np.random.default_rng(0))
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([1, 0, 1, 1]) / 3, atol=0.01)
