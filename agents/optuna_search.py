"""Optuna's tree-structured Parzen estimator: what a general-purpose optimiser reaches.

TPE (Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011) knows nothing of tensor
programs. It sees the sketch as a category and every slot as a number between 0 and 1, which picks
one of the values that are legal given the slots before it; so all that it can ask for is legal. A
knob has the same name in all sketches that have it: what is learned in one counts in the others.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from schedenv.errors import MissingExtraError
from schedenv.measure import Result
from schedenv.space import LocationKnob, Point, SearchSpace, SubSpace, TileKnob
from schedenv.space.knobs import divisors

if TYPE_CHECKING:
    from optuna.trial import Trial

_TRIES = 8
"""Proposals known already that are taken back before a random point is asked for instead."""

_STARTUP_TRIALS = 16
"""Random proposals before the estimator has a say: one batch of the tuning loop."""


SKETCH = "sketch"
"""The name of the one parameter that is a category; its values are the same in every trial."""

Choose = Callable[[str, Sequence[int]], int]
"""Picks, under a name, one of some values, which may be others in the next trial."""


_MEMORY = 128
"""Trials that a study keeps when it has twice as many: the estimator's time grows with them."""


class OptunaAgent:
    """Asks for what Optuna's TPE suggests.

    Args:
        space: The task's points.
        seed: Of the sampler, and of the points drawn when it repeats itself.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingExtraError("optuna", "peers", "the agent optuna") from None
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._known: dict[Point, float] = {}
        self._pending: list[Trial | None] = []
        self._asked: set[Point] = set()
        self._sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP_TRIALS, seed=seed)
        with _quiet():
            self._study = optuna.create_study(sampler=self._sampler)

    def ask(self, count: int) -> list[Point]:
        """`count` proposals, none asked for before unless the space seems to be used up."""
        self._pending, points = [], []
        with _quiet():
            for _ in range(count):
                trial, point = self._propose()
                self._pending.append(trial)
                self._asked.add(point)
                points.append(point)
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Report logarithms of latencies; what failed counts as slower than anything so far."""
        with _quiet():
            for trial, result in zip(self._pending, results, strict=False):
                good = result.ok and result.estimate_s is not None
                if good and result.estimate_s is not None:
                    self._known[result.point] = math.log(result.estimate_s)
                if trial is not None:
                    self._report(trial, result.point)
            self._forget()

    def state_dict(self) -> dict[str, Any]:
        """How much it was told, and the best of it."""
        best = min(self._known, key=lambda point: self._known[point], default=None)
        return {
            "asked": len(self._asked),
            "told": len(self._known),
            "best": None if best is None else str(best),
        }

    def _propose(self) -> tuple[Trial | None, Point]:
        for _ in range(_TRIES):
            trial = self._study.ask()
            point = _point_of(self._space, _chooser(trial))
            if point not in self._asked:
                return trial, point
            if point in self._known:
                self._report(trial, point)
        for _ in range(_TRIES):
            point = self._space.sample(self._rng)
            if point not in self._asked:
                break
        return None, point

    def _report(self, trial: Trial, point: Point) -> None:
        from optuna.trial import TrialState

        known = self._known.get(point)
        if known is None:
            # TPE takes a pruned trial without values for worse than every complete one.
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, known)

    def _forget(self) -> None:
        """Go on in a study of the best and the latest trials, if this one has become long."""
        import optuna
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        if len(trials) < 2 * _MEMORY:
            return
        over = [trial for trial in trials if trial.state.is_finished()]
        complete = [trial for trial in over if trial.state is TrialState.COMPLETE]
        best = sorted(complete, key=lambda trial: trial.values[0])[: _MEMORY // 2]
        kept = {trial.number: trial for trial in [*best, *over[-_MEMORY // 2 :]]}
        self._study = optuna.create_study(sampler=self._sampler)
        self._study.add_trials([kept[number] for number in sorted(kept)])


def _chooser(trial: Trial) -> Choose:
    def choose(name: str, values: Sequence[int]) -> int:
        if len(values) == 1:
            return values[0]
        if name == SKETCH:
            return int(trial.suggest_categorical(name, list(values)))
        # Optuna's categories must not differ between trials; a share of their number may.
        share = trial.suggest_float(name, 0.0, 1.0)
        return values[min(len(values) - 1, int(share * len(values)))]

    return choose


def _point_of(space: SearchSpace, choose: Choose) -> Point:
    """The point that a sequence of choices leads to, legal whatever is chosen."""
    if isinstance(space, SubSpace):
        return _listed(space, choose)
    index = choose(SKETCH, range(len(space.sketches)))
    sketch = space.sketches[index]
    values = list(space.default(index).values)
    for knob in sketch.knobs:
        if isinstance(knob, TileKnob):
            slots = slice(knob.start, knob.start + knob.width)
            values[slots] = _factors(knob, choose)
        elif not isinstance(knob, LocationKnob):
            values[knob.start] = choose(knob.name, range(len(knob.choices)))
    # Where a block may be computed depends on everything else.
    for knob in sketch.locations():
        point = Point(index, tuple(values))
        candidates = space.location_candidates(point, knob)
        values[knob.start] = choose(knob.name, candidates)
    return Point(index, tuple(values))


def _factors(knob: TileKnob, choose: Choose) -> list[int]:
    """A tiling, innermost factor first: every divisor of what is left is as likely."""
    left, factors = knob.extent, []
    for slot in reversed(range(1, knob.width)):
        limit = knob.innermost_limit if slot == knob.width - 1 else left
        factor = choose(f"{knob.name}.{slot}", [d for d in divisors(left) if d <= limit])
        factors.append(factor)
        left //= factor
    return [left, *reversed(factors)]


def _listed(space: SubSpace, choose: Choose) -> Point:
    """Slot after slot, one of the values that points of the sub-space go on with."""
    points: Sequence[Point] = space.points()
    for slot in range(1 + space.width):
        values = sorted({point.vector[slot] for point in points if slot < len(point.vector)})
        if values:
            chosen = choose(f"{points[0].sketch}.{slot}" if slot else SKETCH, values)
            points = [p for p in points if slot < len(p.vector) and p.vector[slot] == chosen]
    return points[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs every trial, and warns that these options of its sampler may change."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
