"""The finalists of all contestants on a task, timed against each other in fresh processes.

As at the end of a tuning run (`schedenv.tuning.heats`): some processes pick each attempt's winner,
others, which the choice has not seen, say how fast it is. What ranks contestants is this, not what
each of them believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from schedenv.comparison.attempts import Attempt, Confirmed, Finals
from schedenv.errors import MachineError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import robust_estimate
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task
from schedenv.tuning.finalists import FINALISTS, Comparer
from schedenv.tuning.heats import Heats, Judged, hold_heats

MOST_KERNELS = 64
"""Kernels held ready at once; attempts with more finalists together are timed in several groups."""

Open = Callable[[int], AbstractContextManager[Comparer]]


def is_current(finals: Finals | None, attempts: Sequence[Attempt]) -> bool:
    """Whether finals hold exactly these attempts of their task."""
    if finals is None:
        return False
    judged = {(result.agent, result.seed) for result in finals.results}
    return judged == {(attempt.agent, attempt.seed) for attempt in attempts}


def confirm_all(
    task: Task,
    hardware: Hardware,
    attempts: Sequence[Attempt],
    on_group: Callable[[int], None] = lambda _: None,
    open_comparer: Open | None = None,
) -> Finals:
    """Time the finalists of all attempts on a task, and the untuned program, together.

    More than `MOST_KERNELS` are timed in several groups; the fastest finalist of all by its
    search's estimate is in every group, and what it takes there puts the groups to one scale.

    Args:
        task: What they compute.
        hardware: What they run on.
        attempts: All of the task; one that failed or found nothing gets the untuned program.
        on_group: Told how many kernels a group has, before it is timed.
        open_comparer: Where they run; None for this machine.

    Raises:
        MachineError: Not even the untuned program can be timed.
    """

    def open_local(inputs_seed: int) -> LocalMeasurer:
        return LocalMeasurer(task, hardware, workers=1, seed=inputs_seed)

    anchor = _anchor(attempts)
    first: Heats | None = None
    slowdowns: list[float] = []
    results: list[Confirmed] = []
    for seed, group in enumerate(_groups(attempts)):
        fields = [_finalists(attempt, group) for attempt in group]
        on_group(1 + len({point for field in fields for point in field}))
        heats, told = _hold(open_comparer or open_local, fields, anchor, seed)
        slowdowns += told
        if heats.untuned is None:
            raise MachineError(
                f"the untuned program of {task.name} cannot be timed; run: schedenv doctor"
            )
        first = first or heats
        factor = _factor(anchor, first, heats)
        results += [
            _confirmed(attempt, winner or heats.untuned, factor)
            for attempt, winner in zip(group, heats.winners, strict=True)
        ]
    assert first is not None
    assert first.untuned is not None
    slowdown = robust_estimate(slowdowns) if slowdowns else None
    return Finals(task.name, first.untuned.timing.latency_s, tuple(results), slowdown)


def _hold(
    open_comparer: Open, fields: Sequence[Sequence[Point]], anchor: Point | None, seed: int
) -> tuple[Heats, list[float]]:
    """The heats of a group, and the machine's slowdowns meanwhile."""
    slowdowns: list[float] = []

    def slowdown() -> float | None:
        now = comparer.slowdown()
        slowdowns.extend(() if now is None else (now,))
        return now

    also = [] if anchor is None else [anchor]
    # Other inputs than in any search: a kernel that is right for those alone is caught.
    with open_comparer(2**20 + seed) as comparer:
        return hold_heats(comparer, fields, seed, also, slowdown), slowdowns


def _factor(anchor: Point | None, first: Heats, heats: Heats) -> float:
    """What times of a group are multiplied by to be those of the first group."""
    if anchor is not None and anchor in first.others and anchor in heats.others:
        return first.others[anchor].latency_s / heats.others[anchor].latency_s
    assert first.untuned is not None
    assert heats.untuned is not None
    return first.untuned.timing.latency_s / heats.untuned.timing.latency_s


def _confirmed(attempt: Attempt, winner: Judged, factor: float) -> Confirmed:
    point, timing = winner.result.point, winner.timing
    return Confirmed(
        attempt.agent,
        attempt.seed,
        None if point == UNTUNED else str(point),
        timing.latency_s * factor,
        timing.low_s * factor,
        timing.high_s * factor,
    )


def _groups(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Attempts in groups that can be held ready at once, whole seeds together."""
    groups: list[list[Attempt]] = [[]]
    for seed in sorted({attempt.seed for attempt in attempts}):
        block = [attempt for attempt in attempts if attempt.seed == seed]
        if groups[-1] and _kernels([*groups[-1], *block]) > MOST_KERNELS - 2:
            groups.append([])
        groups[-1] += block
    return groups


def _kernels(attempts: Sequence[Attempt]) -> int:
    return sum(len(attempt.finalists[:FINALISTS]) for attempt in attempts)


def _finalists(attempt: Attempt, group: Sequence[Attempt]) -> list[Point]:
    """The attempt's best points: as many of each as the group can hold, `FINALISTS` at most."""
    each = max(1, min(FINALISTS, (MOST_KERNELS - 2) // len(group)))
    return [Point.parse(text) for text in attempt.finalists[:each]]


def _anchor(attempts: Sequence[Attempt]) -> Point | None:
    found = [
        (attempt.curve[-1][2], Point.parse(attempt.finalists[0]))
        for attempt in attempts
        if attempt.curve and attempt.finalists
    ]
    return min(found)[1] if found else None
