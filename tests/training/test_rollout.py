"""Episodes of a policy are those that the single environment would have."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from schedenv.envs.actions import STOP
from schedenv.envs.observations import Observation
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.training import RandomPolicy, roll_out

ENVS, STEPS = 12, 9


def made(**changes: Any) -> EditVectorEnv:
    arguments: dict[str, Any] = {"reward": "recorded", "table": ["gmm", "dep"], "max_steps": STEPS}
    return EditVectorEnv(ENVS, autoreset_mode="same_step", **{**arguments, **changes})


class Scattered:
    """Takes a legal action that depends on knobs and mask as if at random; sometimes STOP."""

    def act(self, observations: Observation, masks: Any, rng: Any = None) -> Any:
        knobs = np.rint(observations["knobs"] * 20).astype(int)
        sums = knobs @ np.arange(1, knobs.shape[1] + 1)
        legal = [np.flatnonzero(mask) for mask in masks]
        return np.array([own[total % len(own)] for own, total in zip(legal, sums, strict=True)])


@pytest.mark.parametrize("may_stop", [True, False])
def test_a_rollout_equals_single_episodes_from_the_same_starts(may_stop: bool) -> None:
    envs = made()
    task = envs.task_names[1]
    rollout = roll_out(Scattered(), envs, task, seed=7, may_stop=may_stop)
    single = gymnasium.make(
        "schedenv/Edit-v0", reward="recorded", table=["gmm", "dep"], max_steps=STEPS
    )
    best, last, steps = [], [], []
    for i in range(ENVS):
        observation, info = single.reset(seed=7 + i, options={"task": task})
        speedups, over = [info["speedup"]], False
        while not over:
            mask = single.unwrapped.action_masks()[None]
            if not may_stop:
                mask[:, STOP] = False
            action = Scattered().act({k: v[None] for k, v in observation.items()}, mask)[0]
            observation, _, terminated, truncated, info = single.step(int(action))
            speedups.append(info["speedup"])
            over = terminated or truncated
        best.append(max(speedups))
        last.append(speedups[-1])
        steps.append(len(speedups) - 1)
    np.testing.assert_allclose(rollout.best[-1], best)
    np.testing.assert_allclose(rollout.last, last)
    assert rollout.steps.tolist() == steps
    assert rollout.task == task
    assert rollout.share() == pytest.approx(np.mean(best) / rollout.optimum)
    assert rollout.final_share == pytest.approx(np.mean(last) / rollout.optimum)
    if may_stop:
        assert min(steps) < STEPS
    else:
        assert set(steps) == {STEPS}


def test_what_is_best_never_gets_worse_and_never_beats_the_optimum() -> None:
    rollout = roll_out(RandomPolicy(), made(), rng=np.random.default_rng(0))
    assert rollout.optimum is not None
    assert (np.diff(rollout.best, axis=0) >= 0).all()
    assert (rollout.best[-1] >= rollout.last).all()
    assert (rollout.best <= rollout.optimum * (1 + 1e-9)).all()
    table = read_table(shipped_tables()["gmm"])
    assert rollout.optimum == pytest.approx(table.info.untuned_s / table.optimum_s)
    assert rollout.share(0) == pytest.approx(rollout.best[0].mean() / rollout.optimum)
    assert rollout.share(100) == rollout.share()


def test_equal_seeds_give_equal_rollouts_and_equal_starts_to_all_policies() -> None:
    first, again = (
        roll_out(RandomPolicy(), made(), seed=5, rng=np.random.default_rng(1)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.best, again.best)
    other = roll_out(Scattered(), made(), seed=5)
    np.testing.assert_array_equal(first.best[0], other.best[0])


def test_another_autoreset_mode_is_refused() -> None:
    envs = EditVectorEnv(2, reward="recorded", table="gmm")
    with pytest.raises(InputError) as error:
        roll_out(RandomPolicy(), envs)
    assert str(error.value) == (
        "expected environments with autoreset_mode='same_step', got 'next_step'"
    )
