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
from typing import Any, Protocol, TypeVar

import numpy as np

from schedenv import hardware as hw
from schedenv.errors import MachineError, OutputDirError
from schedenv.measure.local import LocalMeasurer
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
from schedenv.tuning.finalists import Comparer, interleave
from schedenv.tuning.groups import Group, append_group, read_groups
from schedenv.tuning.tabulate import Estimate, estimates_of, find_optimum, leaders, make_rows

T = TypeVar("T")

LOOKS = 3
FINALISTS = 30
FINAL_TURNS = 2
GROUPS = "groups.jsonl"

_CHUNK = 16
_GROUP = 48
_REFERENCES = 6
_ROUNDS = 40
_FINAL_ROUNDS = 120
_GROUP_BUDGET_S = 60.0
_UNTUNED_FORM = "untuned"
_METHOD = (
    "Every program was built, verified and measured once, which gave its status and its cost. Then "
    "all were timed again in several passes, each in an order of its own and with other inputs: in "
    "groups of kernels that are sampled in turn, in random order. The slowness that all kernels of "
    "a round share is divided out; the same few references are in every group and make the groups "
    "comparable; the median look is the estimate, the fastest and the slowest its interval. The "
    "fastest were then timed as a group of their own, more often, and are judged by that alone; "
    "their interval is a 95 % bootstrap, widened to the estimates of the turns. Seconds are those "
    "of a good quarter of the groups. Points of one program or of equal code share their numbers."
)


class LoadingMeasurer(Measurer, Comparer, Protocol):
    """A measurer that can also keep kernels loaded; `LocalMeasurer` is one."""


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
        looks: Passes in which every program is timed.
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
        stage: `prepare`, `measure`, `compare` or `finals`.
        done: Programs measured or timed in this stage, by earlier runs too.
        total: Programs to measure or time in this stage.
        fresh: Those of `done` that this process did.
        counts: Measured programs by status.
        started_s: `time.monotonic()` when the stage began.
    """

    stage: str = "prepare"
    done: int = 0
    total: int = 0
    fresh: int = 0
    counts: Counter[Status] = field(default_factory=Counter)
    started_s: float = field(default_factory=time.monotonic)

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the stage ends; None if nothing can be said yet."""
        if not self.fresh:
            return None
        return (time.monotonic() - self.started_s) / self.fresh * (self.total - self.done)


def record(
    request: RecordRequest,
    on_progress: Callable[[RecordProgress], None] | None = None,
    open_measurer: OpenMeasurer | None = None,
) -> Table:
    """Measure a sub-space exhaustively and write its table.

    What is measured is stored as it comes, and an interrupted recording goes on with `resume`;
    only a group of kernels that was being timed starts anew.

    Args:
        request: What to record.
        on_progress: Called after every result and every group, and when a stage begins.
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
        self._groups: list[Group] = []

    def run(self) -> Table:
        request = self._request
        folder = run_dir.open_run_dir(request.records_dir, resume=request.resume)
        self._check_same(folder)
        self._enter("prepare", 0)
        self._find_equal_programs()
        self._groups = read_groups(folder / GROUPS)
        with RecordStore(folder / run_dir.RECORDS, self._hardware.fingerprint) as store:
            self._recall(store)
            self._measure_all(store)
        self._check_untuned()
        estimates = self._compare_all(folder / GROUPS)
        table = self._tabulate(estimates)
        write_table(table, request.out)
        return table

    def _open_local(self, seed: int, workers: int | None) -> LocalMeasurer:
        return LocalMeasurer(self._request.task, self._hardware, workers=workers, seed=seed)

    def _enter(self, stage: str, total: int, done: int = 0) -> None:
        counts = self._progress.counts
        self._progress = RecordProgress(stage, done, total, counts=counts)
        self._on_progress(self._progress)

    def _advance(self, count: int) -> None:
        self._progress.done += count
        self._progress.fresh += count
        self._on_progress(self._progress)

    def _check_same(self, folder: Path) -> None:
        """Refuse to mix two recordings."""
        request = self._request
        described = {
            "task": request.task.spec,
            "task_hash": request.task.content_hash,
            "restriction": str(request.restriction),
            "seed": request.seed,
            "looks": request.looks,
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

    def _find_equal_programs(self) -> None:
        """Of the points of one program, only the first is measured."""
        for point in self._points.points():
            self._form[point] = self._space.canonical(point)
            self._measured.setdefault(self._form[point], point)

    # -- measuring: status and cost -------------------------------------------------------------

    def _recall(self, store: RecordStore) -> None:
        """Take over what an earlier run has measured."""
        for record in store.records(self._request.task.content_hash):
            form = record.canonical
            point = UNTUNED if form == _UNTUNED_FORM else self._measured.get(form)
            if point is not None:
                self._looks[point].append(record.result)
                self._progress.counts[record.result.status] += 1
                self._earlier_s = max(self._earlier_s, record.elapsed_s)

    def _measure_all(self, store: RecordStore) -> None:
        """Measure every program; once more those that failed, lest the machine was to blame."""
        programs = [UNTUNED, *self._measured.values()]
        known = sum(point in self._looks for point in programs)
        self._enter("measure", len(programs), known)
        for number in (0, 1):
            rng = np.random.default_rng([self._request.seed, number])
            order = [programs[index] for index in rng.permutation(len(programs))]
            waiting = [point for point in order if self._wants_look(point, number)]
            if not waiting:
                continue
            with self._open(self._request.seed + number, None) as measurer:
                for chunk in _chunks(waiting, _CHUNK):
                    results = measurer.measure(chunk, None, lambda r: self._keep(r, store))
                    for result in results:
                        if result.repeated:
                            self._keep(result, store)

    def _wants_look(self, point: Point, number: int) -> bool:
        results = self._looks.get(point, [])
        if number == 0:
            return not results
        # A point that TVM refuses is refused every time.
        return len(results) == 1 and results[0].status not in {Status.OK, Status.CONSTRAINT}

    def _keep(self, result: Result, store: RecordStore) -> None:
        form = self._form.get(result.point, _UNTUNED_FORM)
        task, conditions = self._request.task, {"load_1min": os.getloadavg()[0]}
        store.append(task.content_hash, task.name, form, result, self._elapsed_s, conditions)
        self._looks[result.point].append(result)
        self._progress.counts[result.status] += 1
        self._advance(1)

    @property
    def _elapsed_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._started_s

    def _check_untuned(self) -> None:
        name = self._request.task.name
        untuned = self._looks[UNTUNED][-1]
        if not untuned.ok:
            raise MachineError(
                f"no table of {name}: the untuned program failed ({untuned.status.value}: "
                f"{untuned.reason}); run: schedenv doctor"
            )
        tried = [results[-1] for point, results in self._looks.items() if point != UNTUNED]
        if not any(result.ok for result in tried):
            raise MachineError(
                f"no table of {name}: every candidate failed ({tried[0].status.value}: "
                f"{tried[0].reason}); run: schedenv doctor"
            )

    # -- comparing: how fast --------------------------------------------------------------------

    def _compare_all(self, path: Path) -> dict[Point, Estimate]:
        """Time all that work in several passes, then the fastest against each other."""
        looks = self._request.looks
        leading = set(leaders(self._looks).values())
        good = sorted(point for point in leading if self._looks[point][-1].ok)
        references = self._references(good)
        self._enter("compare", looks * len(good))
        for turn in range(looks):
            rng = np.random.default_rng([self._request.seed, 2, turn])
            order = [good[index] for index in rng.permutation(len(good))]
            self._compare(turn, list(_chunks(order, _GROUP)), references, _ROUNDS, path)
        self._enter("finals", FINAL_TURNS * min(FINALISTS, len(good)))
        for turn in range(looks, looks + FINAL_TURNS):
            known = estimates_of(self._groups, references, looks)
            finalists = [point for point in _ranked(known) if point != UNTUNED][:FINALISTS]
            self._compare(turn, [finalists], references, _FINAL_ROUNDS, path)
        return estimates_of(self._groups, references, looks)

    def _references(self, good: Sequence[Point]) -> list[Point]:
        """Kernels for every group: from the faster half, at even distances."""
        ranked = sorted(good, key=lambda point: (self._looks[point][-1].estimate_s, point))
        half = ranked[: max(1, len(ranked) // 2)]
        places = np.linspace(0, len(half) - 1, min(_REFERENCES, len(half)))
        return list(dict.fromkeys(half[round(place)] for place in places))

    def _compare(
        self,
        turn: int,
        chunks: Sequence[Sequence[Point]],
        references: Sequence[Point],
        rounds: int,
        path: Path,
    ) -> None:
        """Time the kernels of each chunk, and the references, in turn; keep every group."""
        done = sum(group.turn == turn for group in self._groups)
        self._progress.done += sum(len(chunk) for chunk in chunks[:done])
        if done >= len(chunks):
            return
        seed = self._request.seed + 2 + turn
        with self._open(seed, 1) as measurer:
            for chunk in chunks[done:]:
                kernels = list(dict.fromkeys([*references, *chunk]))
                loaded = measurer.load(kernels)
                timed = interleave(loaded, rounds, _GROUP_BUDGET_S, seed, measurer.slowdown)
                samples = {str(result.point): taken for result, taken in timed if taken}
                self._groups.append(Group(turn, samples))
                append_group(path, self._groups[-1])
                self._advance(len(chunk))

    # -- the table ------------------------------------------------------------------------------

    def _tabulate(self, estimates: Mapping[Point, Estimate]) -> Table:
        request = self._request
        rows = make_rows(
            self._points.points(),
            lambda point: self._measured[self._form[point]],
            self._looks,
            estimates,
            self._finalists(),
        )
        optimum = find_optimum(rows)
        untuned = estimates.get(leaders(self._looks)[UNTUNED])
        if optimum is None or untuned is None:
            raise MachineError(
                f"no table of {request.task.name}: nothing could be timed again; run on a quieter "
                "machine: schedenv doctor --noise"
            )
        task = request.task
        info = TableInfo(
            format_version=FORMAT_VERSION,
            task=TaskInfo(
                task.spec, task.name, task.family, task.content_hash, task.flops, task.bytes
            ),
            space_version=SPACE_VERSION,
            restriction=request.restriction,
            sketches=tuple(SketchKnobs.of(sketch) for sketch in self._points.sketches),
            components=self._points.components(),
            hardware=self._hardware,
            versions={
                name: version(name)
                for name in ("schedenv", "apache-tvm", "apache-tvm-ffi", "numpy", "pyarrow")
            },
            conditions=self._conditions(),
            created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            method=Method(
                looks=request.looks,
                finalists=FINALISTS,
                final_turns=FINAL_TURNS,
                seed=request.seed,
                seconds=round(self._elapsed_s, 1),
                text=_METHOD,
            ),
            untuned_s=untuned.latency_s,
            optimum=optimum,
        )
        table = Table(info, tuple(rows))
        table.check()
        return table

    def _finalists(self) -> set[Point]:
        """Points that were in a final turn."""
        return {
            Point.parse(text)
            for group in self._groups
            if group.turn >= self._request.looks
            for text in group.samples_s
        }

    def _conditions(self) -> dict[str, Any]:
        slowdowns = [s for results in self._looks.values() for r in results for s in r.slowdowns]
        quartiles = np.quantile(slowdowns or [1.0], (0.25, 0.5, 0.75))
        return {
            "threads": self._hardware.cores,
            "load_1min_before": round(self._load, 2),
            "load_1min_after": round(os.getloadavg()[0], 2),
            "programs": len(self._measured),
            "codes": len(set(leaders(self._looks).values()) - {UNTUNED}),
            "groups": len(self._groups),
            "slowdown_quartiles": [round(float(q), 3) for q in quartiles],
        }


def _ranked(estimates: Mapping[Point, Estimate]) -> list[Point]:
    return sorted(estimates, key=lambda point: (estimates[point].latency_s, point))


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
