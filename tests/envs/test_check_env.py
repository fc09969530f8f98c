"""Every registered id with every reward source, as Gymnasium and Stable-Baselines3 check it."""

import doctest
import importlib
import re
import warnings
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from schedenv.envs.schedule_env import INFO_KEYS, ScheduleEnv

from .conftest import SMALL

IDS = ["schedenv/Edit-v0", "schedenv/Build-v0"]


def check_all(env_id: str, arguments: dict[str, Any]) -> None:
    stable = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # torch reads what Python will deprecate; that is no fault of the environment.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        env = gymnasium.make(env_id, **arguments)
        try:
            check_env(env.unwrapped)
            stable.check_env(env)
        finally:
            env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_exact_sources_pass_every_check(env_id: str, exact_source: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    check_all(env_id, exact_source)


@pytest.mark.parametrize("observation", ["stores", ["progress", "knobs", "stores", "task"]])
def test_every_choice_of_pieces_passes_every_check(
    observation: str | list[str], exact_source: dict[str, Any]
) -> None:
    pytest.importorskip("matplotlib")
    check_all("schedenv/Edit-v0", {**exact_source, "observation": observation})


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_the_measured_source_passes_every_check(env_id: str) -> None:
    pytest.importorskip("matplotlib")
    check_all(env_id, {"task": SMALL, "reward": "measured"})


@pytest.mark.parametrize("env_id", IDS)
def test_only_measured_rewards_are_called_nondeterministic(
    env_id: str, exact_source: dict[str, Any]
) -> None:
    for arguments, expected in (
        (exact_source, False),
        ({"task": SMALL, "reward": "measured"}, True),
    ):
        env = gymnasium.make(env_id, **arguments)
        assert env.spec is not None
        assert env.spec.nondeterministic is expected
        assert EnvSpec.from_json(env.spec.to_json()).nondeterministic is expected
        env.close()
    assert gymnasium.spec(env_id).nondeterministic


@pytest.mark.parametrize("env_id", IDS)
def test_a_spec_written_as_json_makes_the_same_environment(
    env_id: str, exact_source: dict[str, Any]
) -> None:
    env = gymnasium.make(env_id, **exact_source)
    assert env.spec is not None
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec is not None
    assert again.spec.kwargs == exact_source
    assert again.observation_space == env.observation_space
    assert again.reset(seed=6)[1] == env.reset(seed=6)[1]


@pytest.mark.parametrize("env_id", IDS)
def test_info_has_the_documented_keys_at_every_reset_and_step(
    env_id: str, exact_source: dict[str, Any]
) -> None:
    env = gymnasium.make(env_id, **exact_source)
    _, info = env.reset(seed=0)
    infos = [info]
    env.action_space.seed(0)
    for _ in range(20):
        mask = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        _, _, terminated, _, info = env.step(env.action_space.sample(mask.astype("int8")))
        infos.append(info)
        if terminated:
            break
    assert {tuple(info) for info in infos} == {INFO_KEYS}
    documented = re.findall(r"^    \| `(\w+)` \|", ScheduleEnv.__doc__ or "", re.MULTILINE)
    assert tuple(documented) == INFO_KEYS


DOCUMENTED = [
    "actions", "build", "build_observations", "edit", "graph", "observations", "pieces",
    "schedule_env", "store_observation", "vector",
]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_examples_in_the_documentation_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"schedenv.envs.{name}"))
    assert found.attempted >= 2
    assert found.failed == 0


def test_the_examples_for_stable_baselines3_are_true() -> None:
    pytest.importorskip("stable_baselines3")
    found = doctest.testmod(importlib.import_module("schedenv.envs.sb3"))
    assert (found.attempted, found.failed) == (2, 0)
