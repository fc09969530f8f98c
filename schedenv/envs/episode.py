"""Episodes as data: saved as JSON, read back, and replayed to see whether they still hold.

After CompilerGym's states (Cummins et al., CGO 2022), which store a benchmark, a command line and
a reward, and are validated by running them again; here every step is stored and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium as gym
import msgspec
import numpy as np

from schedenv.errors import EpisodeError, OutputDirError
from schedenv.space import SPACE_VERSION

if TYPE_CHECKING:
    from schedenv.envs.problems import Problem

FORMAT_VERSION = 1
"""Raised when a reader of the version before would misunderstand an episode."""

_MOST_BYTES = 64 << 20


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of an episode.

    Attributes:
        action: The action's number.
        reward: What it paid.
        status: How the candidate's evaluation ended; `ok` where nothing was evaluated.
        illegal: Whether the action was illegal.
        point: Where the agent stood after it; None before `Build-v0` has a point.
        latency_us: The latency there, microseconds a call; None if it is not known.
        observation: `digest` of the observation after it.
    """

    action: int
    reward: float
    status: str
    illegal: bool
    point: str | None
    latency_us: float | None
    observation: str


class Episode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An episode, as far as it went.

    Attributes:
        format_version: `FORMAT_VERSION` of the writer.
        env_id: Registered id of the environment.
        arguments: Of `gymnasium.make`; those that are None are left out.
        task: Name of the task.
        task_hash: Content hash of the task's program.
        space_version: `schedenv.space.SPACE_VERSION` of the writer.
        fingerprint: Of the hardware that the rewards are of.
        is_exact: Whether a replay must give the same numbers; measured ones differ.
        untuned_us: The baseline, microseconds a call; None with predicted rewards.
        optimum_us: The known optimum, microseconds a call; None if it is not known.
        seed: What the episode was reset with; None if it went on with earlier random numbers.
        start: The starting point; None for `Build-v0`.
        start_latency_us: Its latency; None if it is not known.
        start_observation: `digest` of the first observation.
        steps: The steps.
    """

    format_version: int
    env_id: str
    arguments: Mapping[str, Any]
    task: str
    task_hash: str
    space_version: int
    fingerprint: str
    is_exact: bool
    untuned_us: float | None
    optimum_us: float | None
    seed: int | None
    start: str | None
    start_latency_us: float | None
    start_observation: str
    steps: tuple[Step, ...]

    @classmethod
    def of(
        cls,
        env_id: str,
        arguments: Mapping[str, Any],
        problem: Problem,
        seed: int | None,
        start: tuple[str | None, float | None, str],
        steps: Sequence[Step],
    ) -> Episode:
        """The episode of an environment; `start` is its point, its latency and its digest."""
        untuned_us = problem.source.baseline_s() * 1e6 if problem.is_absolute else None
        return cls(
            format_version=FORMAT_VERSION,
            env_id=env_id,
            arguments=arguments,
            task=problem.name,
            task_hash=problem.task.content_hash,
            space_version=SPACE_VERSION,
            fingerprint=problem.hardware.fingerprint,
            is_exact=not problem.is_measured,
            untuned_us=untuned_us,
            optimum_us=problem.optimum_s * 1e6 if problem.optimum_s else None,
            seed=seed,
            start=start[0],
            start_latency_us=start[1],
            start_observation=start[2],
            steps=tuple(steps),
        )

    @property
    def total_reward(self) -> float:
        """The return, not discounted."""
        return sum(step.reward for step in self.steps)

    def save(self, path: Path) -> None:
        """Write the episode as JSON.

        Raises:
            OutputDirError: The file cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        except OSError as error:
            raise OutputDirError(f"{path} cannot be written ({error.strerror or error})") from None

    @classmethod
    def load(cls, path: Path) -> Episode:
        """Read an episode.

        Raises:
            EpisodeError: The file cannot be read, holds no episode, or one of another version.
        """
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise EpisodeError(f"{path} has more than {_MOST_BYTES} bytes; no episode has")
            episode = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise EpisodeError(
                f"the episode {path} cannot be read ({error.strerror or error})"
            ) from None
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise EpisodeError(
                f"{path} holds no episode ({error}); expected what Episode.save wrote"
            ) from None
        if (episode.format_version, episode.space_version) != (FORMAT_VERSION, SPACE_VERSION):
            raise EpisodeError(
                f"{path} has episode format {episode.format_version} and space version "
                f"{episode.space_version}; this schedenv replays {FORMAT_VERSION} and "
                f"{SPACE_VERSION}; use the schedenv that wrote it"
            )
        return episode


class StepCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A step, as it was saved and as it is now.

    Attributes:
        action: The action's number; -1 for the reset.
        saved_reward: The reward in the file; 0 for the reset.
        reward: The reward now.
        saved_latency_us: The latency in the file; None if it is not known.
        latency_us: The latency now.
        saved_status: The status in the file.
        status: The status now.
        same_transition: Whether the action was legal, or illegal, both times, and led to the same
            point.
        same: Whether observation and reward are the same too, to the last bit.
    """

    action: int
    saved_reward: float
    reward: float
    saved_latency_us: float | None
    latency_us: float | None
    saved_status: str
    status: str
    same_transition: bool
    same: bool


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes:
        is_exact: Whether the rewards are of a source that gives the same numbers always.
        same_hardware: Whether the rewards are of the hardware of the file.
        same_task: Whether the task's name still stands for the same program.
        checks: Of the reset and of every step, as far as they could be replayed.
        stopped: Why the replay ended early; None if it did not.
    """

    is_exact: bool
    same_hardware: bool
    same_task: bool
    checks: tuple[StepCheck, ...]
    stopped: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the episode holds: exactly, or, if rewards are measured, step for step.

        A measured candidate may fail where it worked before; the episode then goes another way,
        and does not hold.
        """
        good = all(check.same if self.is_exact else check.same_transition for check in self.checks)
        return good and self.same_task and self.stopped is None


class Replayable(Protocol):
    """What is needed to replay an episode: a registered environment of schedenv."""

    @property
    def unwrapped(self) -> Any:
        """The environment itself."""
        ...


def replay(episode: Episode, env: Replayable | None = None) -> Replay:
    """Take the steps of an episode again and compare.

    Args:
        episode: What to replay.
        env: Where; None makes the environment that the episode names.

    Raises:
        SchedenvError: The environment cannot be made.
    """
    made = gym.make(episode.env_id, **episode.arguments) if env is None else None
    try:
        return _replay(episode, (made or env).unwrapped)  # type: ignore[union-attr]
    finally:
        if made is not None:
            made.close()


def digest(observation: Mapping[str, Any]) -> str:
    """Of everything in an observation: 16 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=8)
    for name in sorted(observation):
        state.update(name.encode())
        state.update(np.ascontiguousarray(observation[name]).tobytes())
    return state.hexdigest()


def _replay(episode: Episode, env: Any) -> Replay:
    options = {"task": episode.task}
    if episode.start is not None:
        options["point"] = episode.start
    observation, info = env.reset(seed=episode.seed, options=options)
    now = env.state()
    same_start = digest(observation) == episode.start_observation
    checks = [
        StepCheck(
            action=-1,
            saved_reward=0.0,
            reward=0.0,
            saved_latency_us=episode.start_latency_us,
            latency_us=info["latency_us"],
            saved_status="ok",
            status=info["status"],
            same_transition=info["point"] == episode.start,
            same=same_start and info["latency_us"] == episode.start_latency_us,
        )
    ]
    stopped = None
    for number, saved in enumerate(episode.steps):
        try:
            observation, reward, _, _, info = env.step(saved.action)
        except gym.error.Error as error:
            stopped = f"step {number + 1} of {len(episode.steps)}: {error}"
            break
        same_transition = (info["point"], info["illegal"]) == (saved.point, saved.illegal)
        checks.append(
            StepCheck(
                action=saved.action,
                saved_reward=saved.reward,
                reward=reward,
                saved_latency_us=saved.latency_us,
                latency_us=info["latency_us"],
                saved_status=saved.status,
                status=info["status"],
                same_transition=same_transition,
                same=same_transition
                and digest(observation) == saved.observation
                and (reward, info["latency_us"], info["status"])
                == (saved.reward, saved.latency_us, saved.status),
            )
        )
    return Replay(
        is_exact=episode.is_exact,
        same_hardware=now.fingerprint == episode.fingerprint,
        same_task=now.task_hash == episode.task_hash,
        checks=tuple(checks),
        stopped=stopped,
    )
