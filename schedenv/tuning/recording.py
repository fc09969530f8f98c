"""Measure every point of a sub-space several times, and write the table."""

from __future__ import annotations

import datetime
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from schedenv import hardware as hw
from schedenv.errors import MachineError, OutputDirError
from schedenv.measure.local import Loaded, LocalMeasurer
from schedenv.measure.measurer import Measurer
from schedenv.measure.result import Result, Status
from schedenv.measure.table import (
    FORMAT_VERSION,
    Method,
    SketchKnobs,
    Table,
    TableInfo,
    TaskInfo,
)
from schedenv.measure.table_file import write_table
from schedenv.records import RecordStore
from schedenv.space import SPACE_VERSION, UNTUNED, Point, Restriction, Space, SubSpace
from schedenv.tasks import Task
from schedenv.tuning import run_dir
from schedenv.tuning.finalists import interleave
from schedenv.tuning.tabulate import (
    Estimate,
    estimates_of,
    find_optimum,
    make_rows,
    pass_scales,
    settle_final_turn,
    with_final_turns,
)

LOOKS = 3
FINAL_TURNS = (90, 30, 30)
"""How many of the fastest are timed against each other, turn by turn.

Looks minutes apart differ by half on a shared machine, so the first turn lets many in.
"""

_CHUNK = 16
_ANCHORS = 24
_ANCHOR_STRIDE = 2
_FINAL_ROUNDS = 120
_FINAL_BUDGET_S = 60.0
_UNTUNED_FORM = "untuned"
_METHOD = (
    "Every program was built, verified and timed in several passes over the whole sub-space, each "
    "in an order of its own and with fresh workers and inputs; passes are scaled to each other, "
    "and the median look is the estimate, the fastest and the slowest look its interval. The "
    "fastest were then timed against each other in several turns, of fewer and fewer kernels, in "
    "random order and in fresh processes; the slowness that all of a round share is divided out, "
    "kernels from the middle of the field give the scale, and the interval is a 95 % bootstrap, "
    "widened to the estimates of the turns. Seconds are those of the clock in the first turn. "
    "Points of one program or of equal code share their numbers."
)


class LoadingMeasurer(Measurer, Protocol):
    """A measurer that can also keep kernels loaded; `LocalMeasurer` is one."""

    def load(self, points: Sequence[Point]) -> list[Loaded]:
        """Build, verify and time points, and keep them loaded."""
        ...


OpenMeasurer = Callable[[int, int | None], AbstractContextManager[LoadingMeasurer]]
"""Opens a measurer, given the seed of its inputs and its workers (None for one a core)."""


@dataclass(frozen=True)
class RecordRequest:
    """What to record.

    Attributes:
        task: The task.
        restriction: The sub-space.
        out: The Parquet file; what is measured is kept beside it, in `records_dir`.
        limit: Most points; a restriction that keeps more is refused.
        seed: Of the order and of the verification inputs.
        looks: Passes over the whole sub-space.
        resume: Continue what `records_dir` holds.
    """

    task: Task
    restriction: Restriction
    out: Path
    limit: int
    seed: int = 0
    looks: int = LOOKS
    resume: bool = False

    @property
    def records_dir(self) -> Path:
        """Where results are kept while recording goes on."""
        return self.out.with_name(self.out.name + ".records")


@dataclass
class RecordProgress:
    """How far recording is.

    Attributes:
        stage: `prepare`, `measure` or `finals`.
        done: Looks taken, earlier runs included.
        total: Looks to take.
        fresh: Looks taken by this process.
        counts: Looks taken by this process, by status.
        best_s: The fastest estimate that this process has seen; None before there is one.
        started_s: `time.monotonic()` when measuring began.
    """

    stage: str = "prepare"
    done: int = 0
    total: int = 0
    fresh: int = 0
    counts: Counter[Status] = field(default_factory=Counter)
    best_s: float | None = None
    started_s: float = field(default_factory=time.monotonic)

    def add(self, result: Result) -> None:
        """Count one look."""
        self.done += 1
        self.fresh += 1
        self.counts[result.status] += 1
        if result.estimate_s is not None:
            self.best_s = min(result.estimate_s, self.best_s or result.estimate_s)

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until all looks are taken; None if nothing can be said yet."""
        if not self.fresh:
            return None
        return (time.monotonic() - self.started_s) / self.fresh * (self.total - self.done)


def record(
    request: RecordRequest,
    on_progress: Callable[[RecordProgress], None] | None = None,
    open_measurer: OpenMeasurer | None = None,
) -> Table:
    """Measure a sub-space exhaustively and write its table.

    Results are stored as they come; an interrupted recording goes on with `resume`. Only the
    comparison of the finalists, which takes about a minute, is not stored and starts anew.

    Args:
        request: What to record.
        on_progress: Called after every look, and when a stage begins.
        open_measurer: Opens the measurer; None for one of this machine.

    Raises:
        InputError: The restriction does not fit, or `out` cannot be written.
        MachineError: The measurement backend failed, or not one candidate works.
        StoreError: Results cannot be stored.
    """
    if request.out.exists():
        raise OutputDirError(f"--out {request.out} exists already; choose another file")
    return _Recorder(request, on_progress or (lambda _: None), open_measurer).run()


class _Recorder:
    """One recording."""

    def __init__(
        self,
        request: RecordRequest,
        on_progress: Callable[[RecordProgress], None],
        open_measurer: OpenMeasurer | None,
    ) -> None:
        self._request, self._on_progress = request, on_progress
        self._hardware = hw.detect()
        self._open = open_measurer or self._open_local
        self._progress = RecordProgress()
        self._started_s = time.monotonic()
        self._load = os.getloadavg()[0]
        self._earlier_s = 0.0
        request.task.check_memory()
        self._space = Space(request.task.mod, self._hardware)
        self._points = SubSpace.of(self._space, request.restriction, request.limit)
        self._form: dict[Point, str] = {}
        self._measured: dict[str, Point] = {}
        self._looks: dict[Point, list[Result]] = defaultdict(list)

    def run(self) -> Table:
        request = self._request
        folder = run_dir.open_run_dir(request.records_dir, resume=request.resume)
        self._check_same(folder)
        self._enter("prepare")
        self._find_equal_programs()
        with RecordStore(folder / run_dir.RECORDS, self._hardware.fingerprint) as store:
            self._recall(store)
            self._progress.total = (1 + len(self._measured)) * request.looks
            self._enter("measure")
            for number in range(request.looks):
                self._take_looks(number, store)
        self._enter("finals")
        table = self._tabulate()
        write_table(table, request.out)
        return table

    def _find_equal_programs(self) -> None:
        """Of the points of one program, only the first is measured."""
        for point in self._points.points():
            self._form[point] = self._space.canonical(point)
            self._measured.setdefault(self._form[point], point)

    def _open_local(self, seed: int, workers: int | None) -> LocalMeasurer:
        return LocalMeasurer(self._request.task, self._hardware, workers=workers, seed=seed)

    def _enter(self, stage: str) -> None:
        self._progress.stage = stage
        self._progress.started_s = time.monotonic()
        self._on_progress(self._progress)

    def _check_same(self, folder: Path) -> None:
        """Refuse to mix two recordings."""
        request = self._request
        described = {
            "task": request.task.spec,
            "task_hash": request.task.content_hash,
            "restriction": str(request.restriction),
            "seed": request.seed,
        }
        if request.resume:
            earlier = run_dir.read_json(folder / run_dir.RUN)
            for key, value in described.items():
                if earlier.get(key) != value:
                    raise OutputDirError(
                        f"{folder} holds a recording of {key} {earlier.get(key)!r}, not {value!r}; "
                        "repeat the command that started it with --resume, or choose another --out"
                    )
        run_dir.write_json(folder / run_dir.RUN, described)

    # -- looking --------------------------------------------------------------------------------

    def _recall(self, store: RecordStore) -> None:
        """Take over what an earlier run has measured."""
        for record in store.records(self._request.task.content_hash):
            point = self._point_of(record.canonical)
            if point is not None:
                self._looks[point].append(record.result)
                self._progress.done += 1
                self._earlier_s = max(self._earlier_s, record.elapsed_s)

    def _point_of(self, form: str) -> Point | None:
        return UNTUNED if form == _UNTUNED_FORM else self._measured.get(form)

    def _take_looks(self, number: int, store: RecordStore) -> None:
        """Pass number `number`: look at every program that has not been looked at that often."""
        rng = np.random.default_rng([self._request.seed, number])
        programs = [UNTUNED, *self._measured.values()]
        order = [programs[index] for index in rng.permutation(len(programs))]
        waiting = [point for point in order if len(self._looks[point]) <= number]
        if not waiting:
            return
        with self._open(self._request.seed + number, None) as measurer:
            for chunk in _chunks(waiting):
                results = measurer.measure(chunk, None, lambda result: self._keep(result, store))
                for result in results:
                    if result.repeated:
                        self._keep(result, store)

    def _keep(self, result: Result, store: RecordStore) -> None:
        form = self._form.get(result.point, _UNTUNED_FORM)
        elapsed_s = self._earlier_s + time.monotonic() - self._started_s
        task, conditions = self._request.task, {"load_1min": os.getloadavg()[0]}
        store.append(task.content_hash, task.name, form, result, elapsed_s, conditions)
        self._looks[result.point].append(result)
        self._progress.add(result)
        self._on_progress(self._progress)

    # -- the table ------------------------------------------------------------------------------

    def _tabulate(self) -> Table:
        looks = {point: self._looks[point][: self._request.looks] for point in self._looks}
        untuned = looks.pop(UNTUNED)
        scales = pass_scales(looks, self._request.looks)
        estimates = estimates_of(looks, scales)
        baseline = estimates_of({UNTUNED: untuned}, scales).get(UNTUNED)
        turns: list[Mapping[Point, Sequence[float]]] = []
        for count in FINAL_TURNS if estimates else ():
            known = with_final_turns(estimates, turns)
            settled, scale = self._final_turn(len(turns), count, known)
            if not turns:
                # From here on, seconds are those of the clock.
                estimates = {point: known[point].times(scale) for point in known}
                baseline = baseline.times(scale) if baseline is not None else None
                settled = {p: [s * scale for s in samples] for p, samples in settled.items()}
            turns.append(settled)
        rows = make_rows(
            self._points.points(),
            lambda point: self._measured[self._form[point]],
            looks,
            with_final_turns(estimates, turns),
            turns[-1] if turns else (),
        )
        optimum = find_optimum(rows)
        if optimum is None or baseline is None:
            result = untuned[0] if baseline is None else next(iter(looks.values()))[0]
            raise MachineError(
                f"no table of {self._request.task.name}: "
                f"{'the untuned program' if baseline is None else 'every candidate'} failed "
                f"({result.status.value}: {result.reason}); run: schedenv doctor"
            )
        task = self._request.task
        info = TableInfo(
            format_version=FORMAT_VERSION,
            task=TaskInfo(
                task.spec, task.name, task.family, task.content_hash, task.flops, task.bytes
            ),
            space_version=SPACE_VERSION,
            restriction=self._request.restriction,
            sketches=tuple(SketchKnobs.of(sketch) for sketch in self._points.sketches),
            components=self._points.components(),
            hardware=self._hardware,
            versions={
                name: version(name)
                for name in ("schedenv", "apache-tvm", "apache-tvm-ffi", "numpy", "pyarrow")
            },
            conditions=self._conditions(looks, scales),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            method=self._method(),
            untuned_s=baseline.latency_s,
            optimum=optimum,
        )
        table = Table(info, tuple(rows))
        table.check()
        return table

    def _final_turn(
        self, turn: int, count: int, estimates: Mapping[Point, Estimate]
    ) -> tuple[Mapping[Point, Sequence[float]], float]:
        """Time the fastest `count`, and some anchors behind them, against each other.

        Returns:
            Samples of the fastest and the scale, as `settle_final_turn` gives them.
        """
        ranked = sorted(estimates, key=lambda point: (estimates[point].latency_s, point))
        behind = ranked[count : count + _ANCHORS * _ANCHOR_STRIDE : _ANCHOR_STRIDE]
        compared = [*ranked[:count], *behind]
        seed = self._request.seed + self._request.looks + turn
        with self._open(seed, 1) as measurer:
            timed = interleave(measurer.load(compared), _FINAL_ROUNDS, _FINAL_BUDGET_S, seed)
        settled, scale = settle_final_turn(timed, estimates, behind)
        return {point: settled[point] for point in ranked[:count] if point in settled}, scale

    def _method(self) -> Method:
        return Method(
            looks=self._request.looks,
            final_turns=FINAL_TURNS,
            seed=self._request.seed,
            seconds=round(self._earlier_s + time.monotonic() - self._started_s, 1),
            text=_METHOD,
        )

    def _conditions(
        self, looks: Mapping[Point, Sequence[Result]], scales: Sequence[float]
    ) -> dict[str, Any]:
        slowdowns = [s for results in looks.values() for r in results for s in r.slowdowns]
        return {
            "threads": self._hardware.cores,
            "load_1min_before": round(self._load, 2),
            "load_1min_after": round(os.getloadavg()[0], 2),
            "programs": len(self._measured),
            "pass_scales": [round(scale, 4) for scale in scales],
            "slowdown_quartiles": [
                round(float(q), 3) for q in np.quantile(slowdowns or [1.0], (0.25, 0.5, 0.75))
            ],
        }


def _chunks(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    return (points[start : start + _CHUNK] for start in range(0, len(points), _CHUNK))
