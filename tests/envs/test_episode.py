"""Episodes: saved, replayed, drawn; forks that go on as their parent does."""

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.cli.replay import remarks
from schedenv.envs.episode import Episode, digest, replay
from schedenv.errors import EpisodeError

from .conftest import OTHER, SMALL

IDS = ["schedenv/Edit-v0", "schedenv/Build-v0"]
ACTIONS = st.lists(st.integers(0, 2**31), min_size=1, max_size=40)
LENIENT = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def make(env_id: str, arguments: dict[str, Any]) -> Any:
    return gymnasium.make(env_id, **arguments).unwrapped


def play(env: Any, numbers: list[int]) -> list[Any]:
    """Steps from arbitrary numbers: every other one is made legal; until the episode ends."""
    taken: list[Any] = []
    for position, number in enumerate(numbers):
        action = number % int(env.action_space.n)
        legal = np.flatnonzero(env.action_masks())
        if position % 2 and len(legal):
            action = int(legal[number % len(legal)])
        observation, reward, terminated, truncated, info = env.step(action)
        taken.append((digest(observation), reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return taken


@pytest.mark.parametrize("env_id", IDS)
@given(numbers=ACTIONS, seed=st.integers(0, 2**31))
@LENIENT
def test_a_replay_gives_the_same_observations_and_rewards(
    env_id: str, numbers: list[int], seed: int, exact_source: dict[str, Any]
) -> None:
    env = make(env_id, exact_source)
    env.reset(seed=seed)
    taken = play(env, numbers)
    episode = msgspec.json.decode(msgspec.json.encode(env.state()), type=Episode)
    found = replay(episode)
    assert found.valid
    assert all(check.same for check in found.checks)
    assert [check.reward for check in found.checks[1:]] == [reward for _, reward, *_ in taken]


@pytest.mark.parametrize("env_id", IDS)
@given(before=ACTIONS, after=ACTIONS, seed=st.integers(0, 2**31))
@LENIENT
def test_a_fork_goes_on_as_its_parent_does(
    env_id: str, before: list[int], after: list[int], seed: int, exact_source: dict[str, Any]
) -> None:
    parent = make(env_id, exact_source)
    parent.reset(seed=seed)
    play(parent, before[:3])
    if parent._running:
        fork = parent.fork()
        # In turn, so that either would notice what the other does.
        states = []
        for env in (parent, fork):
            states.append((play(env, after), env.state(), env.reset()[1]))
        assert states[0] == states[1]
        fork.close()
    assert not parent._closed


def test_a_fork_shares_the_source_until_the_last_is_closed(script: Any) -> None:
    env = make("schedenv/Edit-v0", {"task": SMALL, "reward": "scripted"})
    env.reset(seed=0)
    fork = env.fork()
    env.close()
    env.close()
    assert script.closed == 0
    fork.step(0)
    fork.close()
    assert script.closed == 1


def test_an_episode_survives_the_file(tables: dict[str, str], tmp_path: Path) -> None:
    env = make("schedenv/Edit-v0", {"reward": "recorded", "table": list(tables.values())})
    env.reset(seed=4, options={"task": OTHER})
    play(env, list(range(1, 15)))
    env.state().save(tmp_path / "episode.json")
    episode = Episode.load(tmp_path / "episode.json")
    assert episode == env.state()
    assert (episode.task, episode.seed, episode.is_exact) == (OTHER, 4, True)
    assert replay(episode).valid


def test_a_reward_that_was_changed_is_found(tables: dict[str, str]) -> None:
    env = make("schedenv/Edit-v0", {"reward": "recorded", "table": tables[SMALL]})
    env.reset(seed=0)
    play(env, [5, 6, 7, 8])
    episode = env.state()
    wrong = msgspec.structs.replace(episode.steps[1], reward=episode.steps[1].reward + 1e-12)
    steps = (episode.steps[0], wrong, *episode.steps[2:])
    found = replay(msgspec.structs.replace(episode, steps=steps))
    assert not found.valid
    assert remarks(found) == ["the episode does not hold; the first difference is at step 2"]


def test_another_program_or_more_steps_than_there_can_be_are_found(tables: dict[str, str]) -> None:
    env = make("schedenv/Edit-v0", {"reward": "recorded", "table": tables[SMALL]})
    env.reset(seed=0)
    env.step(0)
    episode = env.state()
    found = replay(msgspec.structs.replace(episode, task_hash="0" * 16, steps=episode.steps * 2))
    assert not found.valid
    assert remarks(found) == [
        "the task's name stands for another program now",
        "the replay ended early at step 2 of 2: the episode is over after 1 steps; call reset "
        "before step",
        "the episode does not hold",
    ]


@pytest.mark.slow
def test_a_measured_episode_holds_if_every_step_does() -> None:
    env = make("schedenv/Edit-v0", {"task": SMALL, "reward": "measured"})
    env.reset(seed=0)
    for _ in range(2):
        env.step(int(np.flatnonzero(env.action_masks()[1:])[-1]) + 1)
    episode = env.state()
    env.close()
    found = replay(episode)
    assert not found.is_exact
    assert [check.same_transition for check in found.checks] == [True] * 3
    assert found.valid
    assert all(check.latency_us and check.saved_latency_us for check in found.checks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no episode (Input data was truncated); expected what Episode.save wrote"),
        ("{}", "holds no episode (Object missing required field `format_version`); expected what "),
    ],
)
def test_a_file_that_is_no_episode_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "episode.json"
    path.write_text(content)
    with pytest.raises(EpisodeError, match=f"^{re.escape(f'{path} {message}')}"):
        Episode.load(path)
    with pytest.raises(EpisodeError, match="cannot be read"):
        Episode.load(tmp_path / "nowhere.json")


def test_an_episode_of_another_version_is_refused(tables: dict[str, str], tmp_path: Path) -> None:
    env = make("schedenv/Edit-v0", {"reward": "recorded", "table": tables[SMALL]})
    env.reset(seed=0)
    path = tmp_path / "episode.json"
    env.state().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    with pytest.raises(EpisodeError, match="has episode format 99 and space version 1; this sche"):
        Episode.load(path)


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_can_be_drawn(env_id: str, exact_source: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    env = make(env_id, {**exact_source, "render_mode": "rgb_array"})
    env.reset(seed=0)
    blank = env.render()
    play(env, list(range(50)))
    picture = env.render()
    assert picture.shape == blank.shape == (450, 800, 3)
    assert picture.dtype == np.uint8
    assert (picture != blank).any()
