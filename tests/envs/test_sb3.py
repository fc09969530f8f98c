"""The adapter for Stable-Baselines3, with its own learners and wrappers."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from schedenv.envs.actions import STOP
from schedenv.envs.sb3 import EditVecEnv
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError
from schedenv.hardware import Hardware
from schedenv.measure.table_file import write_table
from schedenv.space import Space
from schedenv.tasks import Task

from ..recorded_table import make_table

ENVS = 8


@pytest.fixture(scope="module")
def table_path(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_task: Task,
    tiny_space: Space,
    hardware: Hardware,
) -> str:
    path: Path = tmp_path_factory.mktemp("table") / "gmm.parquet"
    write_table(make_table(tiny_task, tiny_space, hardware), path)
    return str(path)


@pytest.fixture
def make(table_path: str) -> Callable[..., EditVecEnv]:
    def made(info_keys: tuple[str, ...] = (), num_envs: int = ENVS) -> EditVecEnv:
        envs = EditVectorEnv(
            num_envs, reward="recorded", table=table_path, max_steps=6, autoreset_mode="same_step"
        )
        return EditVecEnv(envs, info_keys)

    return made


def test_maskable_ppo_learns_on_it_and_the_monitor_counts_episodes(
    make: Callable[..., EditVecEnv],
) -> None:
    env = VecMonitor(make())
    assert is_masking_supported(env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MaskablePPO("MultiInputPolicy", env, n_steps=16, batch_size=64, n_epochs=2, seed=0)
        model.learn(512)
    assert model.num_timesteps == 512
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) > 10
    assert {episode["l"] for episode in model.ep_info_buffer} <= set(range(1, 7))


def test_plain_ppo_learns_on_it(make: Callable[..., EditVecEnv]) -> None:
    model = PPO("MultiInputPolicy", make(), n_steps=16, batch_size=64, n_epochs=1, seed=0)
    model.learn(256)
    assert model.num_timesteps == 256


def test_a_masked_policy_takes_legal_actions_only(make: Callable[..., EditVecEnv]) -> None:
    env = make(("illegal",))
    model = MaskablePPO("MultiInputPolicy", env, n_steps=8, batch_size=32, seed=0)
    env.seed(0)
    observation = env.reset()
    for _ in range(10):
        actions, _ = model.predict(observation, action_masks=get_action_masks(env))
        observation, _, _, infos = env.step(actions)
        assert not any(info["illegal"] for info in infos)


def test_the_end_of_an_episode_is_told_as_sb3_expects_it(make: Callable[..., EditVecEnv]) -> None:
    env = make(("point",), 2)
    env.seed(3)
    first = env.reset()
    starts = [info["point"] for info in env.reset_infos]
    observation, _, done, infos = env.step(np.array([STOP, 318]))
    assert done.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["point"] == starts[0]
    assert set(infos[1]) == {"point"}
    terminal = infos[0]["terminal_observation"]
    np.testing.assert_array_equal(terminal["knobs"], first["knobs"][0])
    assert observation["progress"][0, 0] == 1.0
    assert terminal["progress"][0] == pytest.approx(5 / 6)
    for _ in range(5):
        _, _, done, infos = env.step(np.array([STOP, 318]))
    assert done[1]
    assert infos[1]["TimeLimit.truncated"] is True
    assert infos[1]["terminal_observation"]["progress"][0] == 0.0


def test_seeds_are_one_an_environment(make: Callable[..., EditVecEnv]) -> None:
    env = make()
    starts = []
    for _ in range(2):
        env.seed(5)
        env.reset()
        starts.append([info["point"] for info in env.reset_infos])
    assert starts[0] == starts[1]
    assert len(set(starts[0])) > 1


def test_methods_answer_for_the_environments_asked(make: Callable[..., EditVecEnv]) -> None:
    env = make()
    env.reset()
    masks = env.env_method("action_masks", indices=[1, 3])
    assert len(masks) == 2
    assert env.get_attr("num_envs", [0]) == [ENVS]
    assert env.env_is_wrapped(VecMonitor) == [False] * ENVS
    with pytest.raises(InputError, match=r"^expected close to answer for each of 8 environments"):
        env.env_method("close")
    with pytest.raises(InputError, match=r"^expected x to be set for all 8 environments"):
        env.set_attr("x", 1, [0])


def test_another_autoreset_mode_is_refused(table_path: str) -> None:
    with pytest.raises(InputError, match=r"make the environment with autoreset_mode='same_step'$"):
        EditVecEnv(EditVectorEnv(2, reward="recorded", table=table_path))


def test_without_stable_baselines3_the_extra_is_named() -> None:
    code = "import sys; sys.modules['stable_baselines3'] = None; import schedenv.envs.sb3"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip().endswith(
        "MissingExtraError: the adapter for SB3 needs the package 'stable-baselines3', which is "
        "not installed; run: pip install 'schedenv[train]'"
    )
