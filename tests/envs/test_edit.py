"""`schedenv/Edit-v0` as Gymnasium and an agent see it."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from schedenv.envs.actions import STOP
from schedenv.envs.edit import EditEnv
from schedenv.errors import IllegalPointError, InputError, MachineError, UnknownNameError
from schedenv.space import Point

SMALL = "gmm:1x16x16x16"
Env = gymnasium.Env[Any, Any]


def legal_action(env: EditEnv, rng: np.random.Generator) -> int:
    """A legal action that is not STOP."""
    mask = env.action_masks()
    mask[STOP] = False
    return int(rng.choice(np.flatnonzero(mask)))


def illegal_action(env: EditEnv) -> int:
    return int(np.flatnonzero(~env.action_masks())[0])


# -- on this machine --------------------------------------------------------------------------


@pytest.mark.slow
def test_every_observation_of_a_random_episode_is_in_the_space(measured_env: Env) -> None:
    observation, _ = measured_env.reset(seed=3)
    assert measured_env.observation_space.contains(observation)
    measured_env.action_space.seed(3)
    for _ in range(10):
        mask = measured_env.unwrapped.action_masks().astype(np.int8)  # type: ignore[attr-defined]
        action = measured_env.action_space.sample(mask)
        observation, reward, terminated, truncated, _ = measured_env.step(action)
        assert measured_env.observation_space.contains(observation)
        assert math.isfinite(reward)
        if terminated or truncated:
            break


def test_the_same_seed_starts_at_the_same_point_and_another_elsewhere(measured_env: Env) -> None:
    starts = [measured_env.reset(seed=seed)[1]["point"] for seed in (5, 6, 5)]
    assert starts[0] == starts[2]
    assert starts[0] != starts[1]


def test_an_illegal_action_does_nothing_and_costs_a_tenth(measured_env: Env) -> None:
    _, before = measured_env.reset(seed=1)
    env = measured_env.unwrapped
    action = illegal_action(env)  # type: ignore[arg-type]
    observation, reward, terminated, truncated, info = measured_env.step(action)
    assert (reward, terminated, truncated) == (-0.1, False, False)
    assert info == {**before, "illegal": True}
    assert measured_env.observation_space.contains(observation)


def test_a_legal_action_moves_to_the_point_that_the_move_says(measured_env: Env) -> None:
    _, before = measured_env.reset(seed=1)
    env: EditEnv = measured_env.unwrapped  # type: ignore[assignment]
    action = legal_action(env, np.random.default_rng(1))
    move = env._actions.move(env._problem.space, Point.parse(before["point"]), action)
    assert move is not None
    _, reward, _, _, info = measured_env.step(action)
    assert info["status"] == "ok"
    assert info["point"] == str(move.apply(Point.parse(before["point"])))
    assert info["trials"] == before["trials"] + 1
    assert reward == pytest.approx(math.log(before["latency_us"] / info["latency_us"]))


def test_the_rendered_text_names_every_knob_of_the_point(measured_env: Env) -> None:
    _, info = measured_env.reset(seed=2)
    text = measured_env.render()
    env: EditEnv = measured_env.unwrapped  # type: ignore[assignment]
    assert isinstance(text, str)
    assert text.startswith(f"{SMALL}: ")
    for knob in env._problem.space.sketches[Point.parse(info["point"]).sketch].knobs:
        assert f"  {knob.name} " in text


# -- scripted rewards -------------------------------------------------------------------------


def test_stop_ends_the_episode_where_it_stands(scripted_env: EditEnv) -> None:
    _, before = scripted_env.reset(seed=0)
    _, reward, terminated, truncated, info = scripted_env.step(STOP)
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info == before


def test_the_return_is_the_log_of_the_first_latency_over_the_last(
    scripted_env: EditEnv, script: Any
) -> None:
    _, first = scripted_env.reset(seed=4)
    rng = np.random.default_rng(4)
    total = 0.0
    for _ in range(20):
        _, reward, _, _, last = scripted_env.step(legal_action(scripted_env, rng))
        total += reward
    assert first["point"] != last["point"]
    assert total == pytest.approx(math.log(first["latency_us"] / last["latency_us"]))
    assert last["latency_us"] == pytest.approx(script.latency_s(Point.parse(last["point"])) * 1e6)
    best_s = min(script.latency_s(point) for point in script.asked)
    assert last["best_us"] == pytest.approx(best_s * 1e6)
    assert last["trials"] == 21


def test_a_candidate_that_fails_costs_1_and_is_undone(scripted_env: EditEnv, script: Any) -> None:
    _, before = scripted_env.reset(seed=0)
    script.fails = lambda _: True
    mask = scripted_env.action_masks()
    action = legal_action(scripted_env, np.random.default_rng(0))
    _, reward, terminated, truncated, info = scripted_env.step(action)
    assert (reward, terminated, truncated) == (-1.0, False, False)
    assert info == {
        **before,
        "status": "build_error",
        "reason": "scripted",
        "trials": before["trials"] + 1,
    }
    assert (scripted_env.action_masks() == mask).all()


def test_a_start_that_fails_is_drawn_again(scripted_env: EditEnv, script: Any) -> None:
    script.fails = lambda _: len(script.asked) < 3
    _, info = scripted_env.reset(seed=0)
    assert info["trials"] == 3
    assert info["point"] == str(script.asked[-1])


def test_a_task_without_a_working_start_is_a_fault_of_the_machine(
    scripted_env: EditEnv, script: Any
) -> None:
    script.fails = lambda _: True
    with pytest.raises(
        MachineError,
        match=f"^none of 20 starting points of {SMALL} works; the last: build_error, scripted. "
        "Run: schedenv doctor$",
    ):
        scripted_env.reset(seed=0)


def test_an_episode_can_start_at_a_named_point(scripted_env: EditEnv) -> None:
    _, there = scripted_env.reset(seed=8)
    scripted_env.reset(seed=9)
    _, info = scripted_env.reset(options={"point": there["point"]})
    assert info["point"] == there["point"]


def test_a_malformed_starting_point_is_refused(scripted_env: EditEnv) -> None:
    with pytest.raises(
        IllegalPointError, match=r"^expected a point as 'sketch:value,value,...', got 'x' \(no col"
    ):
        scripted_env.reset(options={"point": "x"})


@pytest.mark.parametrize("point", ["9:1", "0:1", "0:3,3,3,3"])
def test_a_named_starting_point_that_is_not_of_the_space_is_refused(
    point: str, scripted_env: EditEnv
) -> None:
    with pytest.raises(IllegalPointError):
        scripted_env.reset(options={"point": point})


def test_the_registered_environment_truncates_after_32_steps(script: Any) -> None:
    env = gymnasium.make("schedenv/Edit-v0", task=SMALL, reward="scripted")
    first, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    ends = []
    for _ in range(32):
        observation, _, terminated, truncated, _ = env.step(
            legal_action(env.unwrapped, rng)  # type: ignore[arg-type]
        )
        assert not terminated
        ends.append(truncated)
    env.close()
    assert ends == [False] * 31 + [True]
    assert first["progress"][0] == 1.0
    assert observation["progress"][0] == 0.0


def test_a_spec_written_as_json_makes_the_same_environment(script: Any) -> None:
    arguments = {"task": SMALL, "reward": "scripted", "layout": {"tiles": 14}}
    env = gymnasium.make("schedenv/Edit-v0", **arguments)
    assert env.spec is not None
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec is not None
    assert again.spec.kwargs == arguments
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    assert again.reset(seed=6)[1] == env.reset(seed=6)[1]
    env.close()
    again.close()


def test_closing_closes_the_reward_source(script: Any) -> None:
    env = EditEnv(SMALL, reward="scripted")
    env.close()
    assert script.closed == 1


def test_without_a_render_mode_nothing_is_rendered(scripted_env: EditEnv) -> None:
    scripted_env.reset(seed=0)
    assert scripted_env.render() is None


# Over 2000 steps together; a mask of sfm, whose locations TVM is asked for, takes the longest.
@pytest.mark.parametrize(
    ("task", "steps"),
    [
        ("gmm:1x12x20x6", 900),
        ("c2d:1x6x6x4x6x3x1x1", 700),
        ("tbg:1x8x2x6", 200),
        ("cap:1x4x4x2x2x3x1x1", 200),
        ("sfm:8x12", 40),
    ],
)
def test_a_masked_random_policy_never_fails(task: str, steps: int, script: Any) -> None:
    env = EditEnv(task, reward="scripted")
    rng = np.random.default_rng(11)
    script.fails = lambda point: sum(point.values) % 5 == 0
    observation, info = env.reset(seed=11)
    for _ in range(steps):
        action = int(rng.choice(np.flatnonzero(env.action_masks())))
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert not info["illegal"]
        assert math.isfinite(reward)
        assert env._problem.space.is_legal(Point.parse(info["point"]))
        if terminated or truncated:
            env.reset()
    env.close()
    assert len(set(script.asked)) > 10


# -- refusals ---------------------------------------------------------------------------------


def test_an_unknown_task_is_refused_with_the_closest_match() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^unknown operator or suite 'gmmm'; did you mean 'gmm'\?$"
    ):
        EditEnv("gmmm:1x16x16x16")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            {"sketches": 2},
            f"{SMALL} has 3 sketches, the environment's spaces hold 2; "
            "raise it with layout={'sketches': 3}",
        ),
        (
            {"tiles": 3},
            f"{SMALL} has 4 tiles, the environment's spaces hold 3; "
            "raise it with layout={'tiles': 4}",
        ),
        (
            {"levels": 2},
            f"{SMALL} has 4 levels, the environment's spaces hold 2; "
            "raise it with layout={'levels': 4}",
        ),
    ],
)
def test_a_layout_that_is_too_small_is_refused_with_what_is_needed(
    layout: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError) as refusal:
        EditEnv(SMALL, layout=layout)
    assert str(refusal.value) == message
    needed = {name: count + 2 for name, count in layout.items()}
    EditEnv(SMALL, layout=needed).close()
