"""`train`: one run of one trainer, from arguments to a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from schedenv.envs import MAX_STEPS
from schedenv.envs.layout import Layout
from schedenv.errors import (
    CorruptCheckpointError,
    InputError,
    OutputDirError,
    TrainingDivergedError,
)
from schedenv.training import checkpoint
from schedenv.training.checkpoint import CheckpointInfo, Spaces
from schedenv.training.counting import CountingEnvs
from schedenv.training.scalars import ScalarLog
from schedenv.training.sources import Sources
from schedenv.training.trainer import Trainer, diverged, find_trainer, read_settings
from schedenv.tuning import run_dir

TENSORBOARD = "tensorboard"
CHECKPOINT_EVERY_S = 30.0

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_SAME_RUN = (
    "agent",
    "reward",
    "sources",
    "held_out_sources",
    "model",
    "model_sha256",
    "seed",
    "settings",
    "max_steps",
    "scheme",
    "tasks",
)


@dataclass(frozen=True)
class Request:
    """What is to be trained, on what, and for how long.

    Attributes:
        agent: Name of a trainer.
        sources: Tables or tasks.
        seconds: Seconds of training, evaluation included; None for no limit.
        steps: Steps of all environments together; None for no limit.
        seed: Of everything random.
        out: The run's directory.
        resume: Whether to go on from the checkpoint there.
        settings: Hyperparameters that differ from the trainer's defaults, as `NAME=VALUE`.
        max_steps: Steps of an episode.
        scheme: What steps pay, see `schedenv.envs.schemes`.

    Raises:
        InputError: No limit is given, or one that is not positive.
    """

    agent: str
    sources: Sources
    seconds: float | None
    steps: int | None
    seed: int
    out: Path
    resume: bool = False
    settings: tuple[str, ...] = ()
    max_steps: int = MAX_STEPS
    scheme: str = "log_ratio"

    def __post_init__(self) -> None:
        if self.seconds is None and self.steps is None:
            raise InputError("training needs --seconds, --steps, or both; neither was given")
        for name, limit in (("--seconds", self.seconds), ("--steps", self.steps)):
            # `not >` also refuses NaN.
            if limit is not None and not limit > 0:
                raise InputError(f"expected {name} above 0, got {limit:g}")


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        request: What was asked for.
        steps: Steps learned from, earlier runs of a resumed one included.
        elapsed_s: The same in seconds.
        scalars: The latest value of every scalar, the last evaluation's included.
    """

    request: Request
    steps: int
    elapsed_s: float
    scalars: dict[str, float] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        seconds, steps = self.request.seconds, self.request.steps
        return (seconds is not None and self.elapsed_s >= seconds) or (
            steps is not None and self.steps >= steps
        )

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the budget is spent; None if nothing can be said yet."""
        estimates = []
        if self.request.seconds is not None:
            estimates.append(self.request.seconds - self.elapsed_s)
        if self.request.steps is not None and self.steps:
            step_s = self.elapsed_s / self.steps
            estimates.append((self.request.steps - self.steps) * step_s)
        return max(0.0, min(estimates)) if estimates else None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        info: Of the last checkpoint.
        interrupted_by: The signal that ended it; None if the budget did.
    """

    info: CheckpointInfo
    interrupted_by: int | None


def train(request: Request, on_progress: Callable[[Progress], None] = lambda _: None) -> Outcome:
    """Train until the budget is spent or a signal comes, and keep a checkpoint.

    The first SIGINT or SIGTERM ends the run after the rollout that is going on, with a checkpoint
    and without an exception; the second one ends it at once, with the checkpoint before.

    Args:
        request: What to train.
        on_progress: Called after every rollout.

    Raises:
        InputError: Something named cannot be used.
        OutputDirError: The directory holds another run, or none to resume.
        CheckpointError: The checkpoint to resume cannot be used.
        MissingExtraError: A library of the trainer is not installed.
        TrainingDivergedError: The weights are no longer finite.
    """
    trainer_class = find_trainer(request.agent)
    info = _describe(request, trainer_class)
    out = run_dir.open_run_dir(request.out, resume=request.resume)
    earlier = _earlier(out, info) if request.resume else None
    envs = CountingEnvs(
        int(info.settings["environments"]),
        **request.sources.arguments(),
        max_steps=request.max_steps,
        scheme=request.scheme,
        discount=float(info.settings.get("gamma", 0.99)),
    )
    trainer = trainer_class(envs, request.seed, info.settings)
    if earlier is not None:
        _restore(out, trainer, earlier)
        info = earlier
    envs.drain()
    run_dir.write_json(out / run_dir.RUN, _run_json(request, info))
    run = _Run(request, info, trainer, envs)
    try:
        with _interruptible() as caught:
            return run.until_over(caught, on_progress)
    finally:
        run.close()


class _Run:
    """A run that is going on."""

    def __init__(
        self, request: Request, info: CheckpointInfo, trainer: Trainer, envs: CountingEnvs
    ) -> None:
        self._request, self._info, self._trainer, self._envs = request, info, trainer, envs
        self._evaluate = trainer.make_evaluator(request.sources, request.max_steps)
        self._log = ScalarLog(request.out / TENSORBOARD, trainer.steps)
        self._used_s = info.seconds
        self._start_s = time.monotonic()
        self._progress = Progress(request, trainer.steps, self._used_s, dict(info.metrics))

    def until_over(self, caught: list[int], on_progress: Callable[[Progress], None]) -> Outcome:
        """Train until the budget is spent, or `caught` holds a signal."""
        progress = self._progress
        self._save()
        saved_s = progress.elapsed_s
        while not progress.is_over and not caught:
            self._learn()
            if progress.elapsed_s - saved_s >= CHECKPOINT_EVERY_S:
                self._save()
                saved_s = progress.elapsed_s
            on_progress(progress)
        # An interruption must not wait for an evaluation.
        return Outcome(self._save(evaluate=not caught), caught[0] if caught else None)

    def close(self) -> None:
        """Close the event file."""
        self._log.close()

    def _learn(self) -> None:
        progress, before = self._progress, self._progress.steps
        start_s = time.monotonic()
        scalars = dict(self._trainer.learn())
        spent_s = time.monotonic() - start_s
        if not all(np.isfinite(array).all() for array in self._trainer.weights().values()):
            raise TrainingDivergedError(diverged(self._trainer.steps))
        progress.steps = self._trainer.steps
        progress.elapsed_s = self._used_s + time.monotonic() - self._start_s
        scalars |= self._envs.drain()
        scalars["env/steps_per_second"] = (progress.steps - before) / spent_s
        progress.scalars |= scalars
        self._log.add(scalars, progress.steps)

    def _save(self, *, evaluate: bool = True) -> CheckpointInfo:
        progress, trainer = self._progress, self._trainer
        metrics = dict(self._info.metrics)
        weights = trainer.weights()
        if evaluate:
            metrics = self._evaluate(trainer.make_policy(weights))
            progress.scalars |= metrics
            self._log.add(metrics, progress.steps)
        self._log.flush()
        progress.elapsed_s = self._used_s + time.monotonic() - self._start_s
        info = msgspec.structs.replace(
            self._info, steps=progress.steps, seconds=progress.elapsed_s, metrics=metrics
        )
        self._info = checkpoint.save(self._request.out, info, weights, trainer.state())
        return self._info


def _describe(request: Request, trainer: type[Trainer]) -> CheckpointInfo:
    """The checkpoint's description before anything is learned."""
    sources = request.sources
    names = ("schedenv", "gymnasium", "numpy", *trainer.libraries)
    return CheckpointInfo(
        agent=request.agent,
        settings=read_settings(trainer.defaults, request.settings),
        spaces=Spaces.of(Layout()),
        reward=sources.reward,
        model=sources.model,
        model_sha256=sources.model_sha256,
        max_steps=request.max_steps,
        scheme=request.scheme,
        sources=sources.learned,
        held_out_sources=sources.held_out,
        tasks=sources.tasks,
        held_out=sources.held_out_tasks,
        seed=request.seed,
        versions={name: _version(name) for name in names},
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _earlier(out: Path, info: CheckpointInfo) -> CheckpointInfo:
    """The checkpoint to go on from.

    Raises:
        OutputDirError: It is of another run.
    """
    earlier = checkpoint.read_info(out)
    for name in _SAME_RUN:
        found, asked = getattr(earlier, name), getattr(info, name)
        if found != asked:
            raise OutputDirError(
                f"--out {out} holds a run of {name.replace('_', ' ')} {_plain(found)}, not "
                f"{_plain(asked)}; repeat the command that started it with --resume, or choose "
                "another --out"
            )
    return msgspec.structs.replace(earlier, versions=info.versions)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _restore(out: Path, trainer: Trainer, earlier: CheckpointInfo) -> None:
    weights = checkpoint.read_arrays(out, earlier.policy)
    state = checkpoint.read_arrays(out, earlier.state)
    try:
        trainer.restore(weights, state, earlier.steps)
    except (ValueError, KeyError) as error:
        raise CorruptCheckpointError(
            f"{out} cannot be resumed ({error}); train again with schedenv train"
        ) from None


def _run_json(request: Request, info: CheckpointInfo) -> dict[str, Any]:
    """The content of `run.json`."""
    return {
        "command": "train",
        "agent": request.agent,
        "tasks": [task.spec for task in info.tasks],
        "held_out": [task.spec for task in info.held_out],
        "seconds": request.seconds,
        "steps": request.steps,
        "seed": request.seed,
        "settings": dict(info.settings),
        "hardware": sorted({task.fingerprint for task in (*info.tasks, *info.held_out)}),
        "versions": dict(info.versions),
        "git_revision": run_dir.git_revision(),
    }


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Signals are put into a list; the second one raises KeyboardInterrupt."""
    caught: list[int] = []

    def note(number: int, _: object) -> None:
        caught.append(number)
        if len(caught) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python lets no other thread handle signals
        return
    previous = {number: signal.signal(number, note) for number in _INTERRUPTS}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
