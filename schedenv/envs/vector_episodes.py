"""The running episodes of a vector environment, as arrays with one entry an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.envs import rewards
from schedenv.envs.observations import Observation
from schedenv.envs.schemes import Scheme
from schedenv.envs.vector_source import OK, STATUSES, Doubles, Points, VectorSource
from schedenv.errors import MachineError
from schedenv.space.batch import Bools, Indices

Info = dict[str, Any]

START_ATTEMPTS = 20
_STATUS_NAMES = np.array([status.value for status in STATUSES], object)


class Episodes:
    """Where every environment stands, and what happened to it since its episode began.

    Args:
        count: How many environments.
        source: Their points.
        max_steps: Steps that `progress` counts down.
        keys: Of the observation.

    Attributes:
        points: Where each stands; None before the first start.
        tasks: The task of each, shape (n,).
        steps: Steps of the episode so far.
    """

    def __init__(
        self, count: int, source: VectorSource, max_steps: int, keys: Sequence[str]
    ) -> None:
        self._count, self._source, self._max_steps = count, source, max_steps
        self._keys = keys
        facts = source.facts
        self._titles = np.array([fact.title for fact in facts], object)
        self._flops = np.array([fact.flops for fact in facts])
        self._baselines_s = np.array([fact.baseline_s for fact in facts])
        self._optima_s = np.array([fact.optimum_s or np.nan for fact in facts])
        self._is_absolute = np.array([fact.is_absolute for fact in facts])
        self._task_features = np.stack([fact.task for fact in facts])
        self._hardware = np.stack([fact.hardware for fact in facts])
        self.points: Points | None = None
        self.tasks = np.zeros(count, np.intp)
        self.steps = np.zeros(count, np.int64)
        self._seconds = np.full(count, np.nan)
        self._best_s = np.full(count, np.inf)
        self._trials = np.zeros(count, np.int64)
        self._spent_s = np.zeros(count)
        self._status = np.full(count, OK, np.int8)
        self._reasons = np.full(count, None, object)
        self._illegal = np.zeros(count, np.bool_)

    def start(
        self,
        envs: Indices,
        rngs: Sequence[np.random.Generator],
        task: int | None = None,
        named: str | None = None,
    ) -> None:
        """Begin episodes at points that work: drawn, or the one named.

        Args:
            envs: Which environments.
            rngs: Of all environments.
            task: Position of the task of all of them; None draws one for each.
            named: Text form of the starting point.

        Raises:
            IllegalPointError: The point named is malformed or not of a task's space.
            MachineError: No start works.
        """
        count = len(self._source.facts)
        if task is not None or count == 1:
            self.tasks[envs] = task or 0
        else:
            self.tasks[envs] = [rngs[i].integers(count) for i in envs]
        self.steps[envs] = self._trials[envs] = 0
        self._spent_s[envs] = 0.0
        self._best_s[envs] = np.inf
        pending, last = envs, None
        attempts = 1 if named is not None else START_ATTEMPTS
        for _ in range(attempts):
            if not len(pending):
                break
            last = self._candidates(pending, rngs, named)
            if self.points is None:
                self.points = np.zeros((self._count, *last.shape[1:]), last.dtype)
            works = self._try(pending, last)
            pending, last = pending[~works], last[~works]
        if len(pending):
            assert last is not None
            status = _STATUS_NAMES[self._source.evaluate(last[:1]).status[0]]
            raise MachineError(
                f"none of {attempts} starting points of "
                f"{self._source.facts[self.tasks[pending[0]]].name} works; the last: {status}, "
                f"{self._source.reasons(last[:1])[0]}. Run: schedenv doctor"
            )
        # Of the start, only that it works is told.
        self._status[envs], self._reasons[envs], self._illegal[envs] = OK, None, False

    def act(self, actions: Indices, acting: Bools, stops: Bools, scheme: Scheme) -> Doubles:
        """Apply an action to each environment that acts; what the steps pay.

        Args:
            actions: Numbers, shape (n,).
            acting: Which environments act; the others stay as they are.
            stops: Which actions are STOP.
            scheme: What steps pay.
        """
        assert self.points is not None
        moved, legal = self._source.move(self.points, actions)
        tried = np.flatnonzero(acting & legal)
        self._illegal = acting & ~legal & ~stops
        self._status = np.full(self._count, OK, np.int8)
        self._reasons = np.full(self._count, None, object)
        before_s = self._seconds.copy()
        works = self._try(tried, moved[tried])
        paid = np.where(
            acting, scheme.step(before_s, self._seconds, self._baselines_s[self.tasks]), 0.0
        )
        paid[tried[~works]] += rewards.FAILURE_REWARD
        paid[self._illegal] += rewards.ILLEGAL_REWARD
        self.steps += acting
        return paid

    def final_rewards(self, scheme: Scheme) -> Doubles:
        """What an end here would pay."""
        return np.asarray(scheme.end(self._seconds, self._baselines_s[self.tasks]))

    def observation(self) -> Observation:
        """The observations, all new arrays."""
        assert self.points is not None
        knobs, knob_mask, sketch = self._source.observe(self.points)
        baseline_s = self._baselines_s[self.tasks]
        progress = np.empty((self._count, 3), np.float32)
        progress[:, 0] = np.maximum(0.0, 1.0 - self.steps / self._max_steps)
        progress[:, 1] = np.log2(baseline_s / self._seconds) / 10
        progress[:, 2] = np.log2(baseline_s / self._best_s) / 10
        np.clip(progress, -1.0, 1.0, out=progress)
        seen = {
            "knobs": knobs,
            "knob_mask": knob_mask,
            "sketch": sketch,
            "task": self._task_features.take(self.tasks, axis=0),
            "hardware": self._hardware.take(self.tasks, axis=0),
            "progress": progress,
        }
        return {key: seen[key] for key in self._keys}

    def info(self, meant: Bools | None = None) -> Info:
        """The batched info, all new arrays.

        Args:
            meant: Which environments it is about; None for all. Of the others, numbers are 0,
                texts None, and the mask of every key is False, as Gymnasium has it.
        """
        assert self.points is not None
        seconds, best_s = self._seconds, self._best_s
        everyone = np.ones(self._count, np.bool_) if meant is None else meant
        absolute = everyone & self._is_absolute[self.tasks]
        optimum_s = self._optima_s[self.tasks]
        known = everyone & ~np.isnan(optimum_s)
        failed = everyone & (self._status != OK)
        keys: dict[str, tuple[npt.NDArray[Any], Bools]] = {
            "task": (self._titles[self.tasks], everyone),
            "status": (_STATUS_NAMES[self._status], everyone),
            "reason": (self._reasons.copy(), failed),
            "illegal": (self._illegal.copy(), everyone),
            "point": (self._source.texts(self.points), everyone),
            "latency_us": (seconds * 1e6, absolute),
            "speedup": (self._baselines_s[self.tasks] / seconds, everyone),
            "gflops_per_s": (self._flops[self.tasks] / seconds / 1e9, absolute),
            "peak_fraction": (np.zeros(self._count), np.zeros(self._count, np.bool_)),
            "best_us": (best_s * 1e6, absolute),
            "regret": (best_s / optimum_s - 1.0, known),
            "optimum_fraction": (optimum_s / best_s, known),
            "trials": (self._trials.copy(), everyone),
            "seconds": (self._spent_s.copy(), everyone),
        }
        infos: Info = {}
        for key, (values, mask) in keys.items():
            if not mask.all():
                values[~mask] = None if values.dtype == object else 0
            infos[key], infos[f"_{key}"] = values, mask.copy()
        return infos

    def text(self, env: int) -> str:
        """Where one environment stands, as text."""
        assert self.points is not None
        fact, seconds = self._source.facts[self.tasks[env]], self._seconds[env]
        if fact.is_absolute:
            speed = f"{seconds * 1e6:.1f} us (best {self._best_s[env] * 1e6:.1f} us)"
        else:
            speed = f"{1 / seconds:.2f} times the plainest point's speed, predicted"
        return f"{fact.name}: {speed}\n{self._source.describe(self.points[env : env + 1])}"

    def _candidates(
        self, envs: Indices, rngs: Sequence[np.random.Generator], named: str | None
    ) -> Points:
        tasks = self.tasks[envs]
        if named is None:
            return self._source.draw(tasks, [rngs[i] for i in envs])
        parsed = {task: self._source.parse(task, named) for task in set(tasks.tolist())}
        return np.concatenate([parsed[task] for task in tasks.tolist()])

    def _try(self, envs: Indices, candidates: Points) -> Bools:
        """Evaluate a candidate for each of `envs` and go to those that work; which they are."""
        assert self.points is not None
        answers = self._source.evaluate(candidates)
        self._trials[envs] += 1
        self._spent_s[envs] += answers.spent_s
        works: Bools = answers.status == OK
        good, seconds = envs[works], answers.seconds[works]
        self.points[good] = candidates[works]
        self._seconds[good] = seconds
        self._best_s[good] = np.minimum(self._best_s[good], seconds)
        if not works.all():
            bad = envs[~works]
            self._status[bad] = answers.status[~works]
            self._reasons[bad] = self._source.reasons(candidates[~works])
        return works
