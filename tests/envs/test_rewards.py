"""Reward sources: recorded tables and cost models, and what is wrong with them."""

import math
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from schedenv.envs.edit import EditEnv
from schedenv.envs.rewards import PredictedReward, RecordedReward
from schedenv.envs.schemes import SCHEMES, make_scheme
from schedenv.errors import (
    IllegalPointError,
    InputError,
    ModelOutputError,
    PointNotRecordedError,
    UnknownNameError,
)
from schedenv.measure.table_file import read_table
from schedenv.space import Point
from schedenv.tasks import resolve

from .conftest import OTHER, SMALL
from .linear_model import MOST_SLOTS, LinearModel


def walk(env: EditEnv, seed: int, steps: int = 20) -> list[tuple[float, dict[str, Any]]]:
    """Rewards and infos of random legal steps that are not STOP."""
    rng = np.random.default_rng(seed)
    taken = []
    for _ in range(steps):
        mask = env.action_masks()
        action = int(rng.choice(np.flatnonzero(mask[1:]) + 1))
        _, reward, _, _, info = env.step(action)
        taken.append((float(reward), info))
    return taken


# -- recorded ---------------------------------------------------------------------------------


def test_recorded_numbers_are_those_of_the_table(tables: dict[str, str]) -> None:
    table = read_table(Path(tables[SMALL]))
    env = EditEnv(reward="recorded", table=tables[SMALL])
    _, start = env.reset(seed=3)
    best_s = math.inf
    for info in (start, *(info for _, info in walk(env, 3))):
        row = table.by_point[Point.parse(info["point"])]
        assert row.estimate_s is not None
        best_s = min(best_s, row.estimate_s)
        assert info["latency_us"] == row.estimate_s * 1e6
        assert info["speedup"] == table.info.untuned_s / row.estimate_s
        assert info["regret"] == best_s / table.optimum_s - 1
        assert info["optimum_fraction"] == table.optimum_s / best_s
    env.close()


def test_at_the_optimum_the_regret_is_nothing(tables: dict[str, str]) -> None:
    table = read_table(Path(tables[SMALL]))
    env = EditEnv(reward="recorded", table=tables[SMALL])
    _, info = env.reset(options={"point": table.info.optimum.point})
    assert (info["regret"], info["optimum_fraction"]) == (0.0, 1.0)


def test_a_failure_that_was_recorded_costs_and_says_why(tables: dict[str, str]) -> None:
    env = EditEnv(reward="recorded", table=tables[SMALL], max_steps=1000)
    env.reset(seed=0)
    failed = [(reward, i) for reward, i in walk(env, 0, 300) if i["status"] != "ok"]
    assert failed
    assert {reward for reward, _ in failed} == {-1.0}
    assert {i["reason"] for _, i in failed} == {"off by 3.1 times the tolerance"}


def test_a_start_outside_the_table_is_refused(tables: dict[str, str]) -> None:
    env = EditEnv(reward="recorded", table=tables[SMALL])
    with pytest.raises(IllegalPointError, match=r"it is not one of the \d+ points of this sub"):
        env.reset(options={"point": "0:16,1,1,1"})


def test_a_point_that_the_table_misses_is_named(tables: dict[str, str]) -> None:
    table = read_table(Path(tables[SMALL]))
    with pytest.raises(PointNotRecordedError) as refusal:
        RecordedReward(table).evaluate(Point(0, (1,)), None)
    assert str(refusal.value) == (
        f"0:1 is not one of the {len(table.rows)} points of the recorded table {tables[SMALL]}; "
        "stay within its own space (Table.space())"
    )


def test_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match=r"^there is no recorded table nowhere.parquet; expected"):
        EditEnv(reward="recorded", table="nowhere.parquet")


# -- predicted --------------------------------------------------------------------------------


def test_predicted_rewards_are_differences_of_scores(model: str, linear_models: None) -> None:
    env = EditEnv(SMALL, reward="predicted", model=model)
    _, before = env.reset(seed=1)
    linear, task = LinearModel.load(Path(model)), resolve(SMALL)
    for reward, info in walk(env, 1):
        scores = linear.predict(
            task, env._problem.space, [Point.parse(i["point"]) for i in (before, info)]
        )
        assert reward == pytest.approx(scores[1] - scores[0], abs=1e-5)
        assert info["latency_us"] is info["gflops_per_s"] is info["regret"] is None
        before = info
    _, plainest = env.reset(options={"point": str(env._problem.space.default())})
    assert plainest["speedup"] == pytest.approx(1.0)


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_model_that_gives_no_number_is_refused(weight: float) -> None:
    env = EditEnv(SMALL)
    space, task = env._problem.space, resolve(SMALL)
    source = PredictedReward(LinearModel([weight] * MOST_SLOTS), "folder", task, space)
    with pytest.raises(ModelOutputError) as refusal:
        source.evaluate(space.default(), None)
    assert str(refusal.value) == (
        f"the cost model folder answered [{weight}] for {space.default()} of {SMALL}; expected "
        "one finite score: its training diverged, or it saw data that is not finite; fit it again"
    )


def test_a_model_whose_scores_are_no_logarithms_is_refused() -> None:
    env = EditEnv(SMALL)
    space, task = env._problem.space, resolve(SMALL)
    source = PredictedReward(LinearModel([1e6] * MOST_SLOTS), "folder", task, space)
    point = next(p for p in space.neighbours(space.default()) if p.sketch == 0)
    with pytest.raises(ModelOutputError, match="expected at most 100 either way: scores must"):
        source.evaluate(point, None)


# -- which arguments go together --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"task": SMALL, "reward": "oracle"},
            "expected reward to be one of ['measured', 'predicted', 'recorded'], got 'oracle'",
        ),
        ({"reward": "recorded"}, "reward='recorded' needs table=..., a recorded table's file"),
        (
            {"reward": "predicted", "task": SMALL},
            "reward='predicted' needs model=..., a cost model's folder",
        ),
        (
            {"task": SMALL, "table": "t.parquet"},
            "table='t.parquet' is for reward='recorded', and the reward is 'measured'; leave it "
            "out or change the reward",
        ),
        (
            {},
            "reward='measured' needs task=..., such as 'gmm:1x128x128x128', a list of tasks or the "
            "name of a suite",
        ),
        (
            {"task": SMALL, "scheme": "greedy"},
            "expected scheme to be one of ['log_ratio', 'relative', 'shaped', 'terminal'], got "
            "'greedy'",
        ),
        ({"task": SMALL, "discount": 0.0}, "expected a discount above 0 and up to 1, got 0.0"),
        (
            {"task": SMALL, "render_mode": "human"},
            "expected render_mode to be one of ['ansi', 'rgb_array'] or None, got 'human'",
        ),
        ({"task": SMALL, "max_steps": 0}, "expected max_steps of at least 1, got 0"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        EditEnv(**arguments)


# -- several tasks ----------------------------------------------------------------------------


def test_one_environment_holds_several_tables(tables: dict[str, str]) -> None:
    env = EditEnv(reward="recorded", table=list(tables.values()))
    assert env.task_names == (SMALL, OTHER)
    for name in (SMALL, OTHER):
        observation, info = env.reset(seed=0, options={"task": name})
        assert info["task"] == name
        assert env.observation_space.contains(observation)
        assert env.reset(seed=0, options={"task": tables[name]})[1] == info
    drawn = {env.reset(seed=seed)[1]["task"] for seed in range(20)}
    assert drawn == {SMALL, OTHER}


def test_a_suite_is_all_its_members() -> None:
    env = EditEnv(["core", SMALL], reward="measured")
    assert len(env.task_names) == 14
    assert env.task_names[0] == "core/gmm-0"
    assert env.task_names[-1] == SMALL


def test_a_task_that_the_environment_does_not_have_is_refused(tables: dict[str, str]) -> None:
    env = EditEnv(reward="recorded", table=list(tables.values()))
    with pytest.raises(UnknownNameError, match=r"^unknown task of this environment 'gmm:1x16x16'"):
        env.reset(options={"task": "gmm:1x16x16"})
    with pytest.raises(InputError, match=r"^expected reset options task and point, got start$"):
        env.reset(options={"start": "0:1"})


def test_tasks_pick_among_tables(tables: dict[str, str]) -> None:
    env = EditEnv(OTHER, reward="recorded", table=list(tables.values()))
    assert env.task_names == (OTHER,)
    with pytest.raises(UnknownNameError, match="unknown task of these tables 'sfm:8x12'"):
        EditEnv("sfm:8x12", reward="recorded", table=list(tables.values()))


# -- reward schemes ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes_sum_to_what_they_promise(scheme: str, tables: dict[str, str]) -> None:
    gamma = 0.9
    env = EditEnv(reward="recorded", table=tables[SMALL], scheme=scheme, discount=gamma)
    _, first = env.reset(seed=5)
    rewards = []
    before = first
    for reward, info in walk(env, 5, 12):
        rewards.append(reward + (info["status"] != "ok"))
        if scheme == "relative" and info["status"] == "ok":
            expected = before["latency_us"] / info["latency_us"] - 1
            assert reward == pytest.approx(expected)
        before = info
    rewards.append(float(env.step(0)[1]))
    log_first, log_last = math.log(first["speedup"]), math.log(before["speedup"])
    discounted = sum(gamma**n * reward for n, reward in enumerate(rewards))
    if scheme == "log_ratio":
        assert sum(rewards) == pytest.approx(log_last - log_first)
    elif scheme == "terminal":
        assert rewards == [0.0] * 12 + [pytest.approx(log_last)]
    elif scheme == "shaped":
        # Shaping changes the return by the start's potential, whatever the agent did.
        assert discounted == pytest.approx(gamma**12 * log_last - log_first)


def test_the_terminal_reward_is_paid_when_the_steps_run_out(tables: dict[str, str]) -> None:
    env = EditEnv(reward="recorded", table=tables[SMALL], scheme="terminal", max_steps=3)
    env.reset(seed=0)
    *_, (reward, last) = walk(env, 1, 3)
    assert reward + (last["status"] != "ok") == pytest.approx(math.log(last["speedup"]))


def test_scheme_names_are_those_that_can_be_made() -> None:
    assert [type(make_scheme(name, 0.5)).__name__ for name in SCHEMES] == [
        "LogRatio", "Relative", "Shaped", "Terminal",
    ]  # fmt: skip


# -- refusals of steps ------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["schedenv/Edit-v0", "schedenv/Build-v0"])
def test_steps_that_cannot_be_taken_are_refused(env_id: str, tables: dict[str, str]) -> None:
    made = gymnasium.make(env_id, reward="recorded", table=tables[SMALL], max_steps=2)
    env = made.unwrapped
    for call in (lambda: env.step(0), env.action_masks, env.state):  # type: ignore[attr-defined]
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"^call reset before "):
            call()
    env.reset(seed=0)
    last = int(env.action_space.n) - 1  # type: ignore[attr-defined]
    for action in (-1, last + 1, 1.0, True, "0", np.array([0])):
        with pytest.raises(gymnasium.error.InvalidAction) as refusal:
            env.step(action)
        assert str(refusal.value) == f"expected an action from 0 to {last}, got {action!r}"
    for _ in range(2):
        illegal = int(np.flatnonzero(~env.action_masks())[0])  # type: ignore[attr-defined]
        _, _, terminated, truncated, _ = env.step(illegal)
    assert (terminated, truncated) == (False, True)
    with pytest.raises(
        gymnasium.error.ResetNeeded,
        match=r"^the episode is over after 2 steps; call reset before step$",
    ):
        env.step(0)
