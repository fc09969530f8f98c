"""The measurer that answers from a recorded table: exact, offline, with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schedenv.errors import PointNotRecordedError
from schedenv.measure.known import KnownResults, repeat
from schedenv.measure.result import Phases, Result, Status
from schedenv.measure.table import Row, Table
from schedenv.space import UNTUNED, Point


class RecordedMeasurer:
    """Answers from a table what the machine answered when the table was made.

    Nothing is compiled or timed, and no real time counts: every answer advances a simulated clock
    by what the measurement cost when it was recorded. Phases before the run (applying, building,
    loading) go on in parallel on the machine's cores, so they are charged divided by the number
    of cores; verifying and timing go on alone and are charged in full. So the order of the points
    and the size of the batches do not matter, and a run can be repeated exactly. An equal program,
    or one of equal code, costs what finding that out costs: its share of applying.

    Args:
        table: Where the answers come from.

    Attributes:
        elapsed_s: Simulated seconds charged so far.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._cores = table.info.hardware.cores
        self._known = KnownResults()
        self.elapsed_s = 0.0

    def clock(self) -> float:
        """The simulated time, for `schedenv.tuning.Budget`."""
        return self.elapsed_s

    def measure(
        self,
        points: Sequence[Point],
        incumbent_s: float | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Look the points up; see `schedenv.measure.measurer.Measurer`.

        The table has the full result of every point, so `incumbent_s` does not matter.

        Raises:
            PointNotRecordedError: The table does not hold a point.
        """
        del incumbent_s
        rows = [None if point == UNTUNED else self._row(point) for point in points]
        results = []
        for row in rows:
            result = self._untuned() if row is None else self._answer(row)
            results.append(result)
            if on_result is not None and not result.repeated:
                on_result(result)
        return results

    def remember(self, results: Sequence[Result]) -> None:
        """Take over the results of an earlier run: equal programs are repetitions."""
        for result in results:
            self._known.add(result)

    def close(self) -> None:
        """There is nothing to release."""

    def _row(self, point: Point) -> Row:
        row = self._table.by_point.get(point)
        if row is None:
            info = self._table.info
            raise PointNotRecordedError(
                f"{point} is not one of the {len(self._table.rows)} points of the recorded table "
                f"{self._table.source or info.task.name}; ask for points of its own space "
                "(Table.space()), or record a table that holds it: "
                f"schedenv record {info.task.spec} --restrict JSON --out FILE"
            )
        return row

    def _answer(self, row: Row) -> Result:
        known = self._known.find(row.program, row.code)
        if known is not None:
            spent = Phases(apply_s=row.phases.apply_s)
            self.elapsed_s += self._cost_s(spent)
            return repeat(known, row.point, row.program, spent)
        self.elapsed_s += self._cost_s(row.phases)
        result = row.result()
        self._known.add(result)
        return result

    def _cost_s(self, phases: Phases) -> float:
        """What a measurement is charged."""
        alone_s = phases.verify_s + phases.run_s
        return (phases.total_s - alone_s) / self._cores + alone_s

    def _untuned(self) -> Result:
        """The program without a schedule, which is timed before the clock of a search starts."""
        untuned_s = self._table.info.untuned_s
        return Result(point=UNTUNED, status=Status.OK, samples_s=(untuned_s,), estimate_s=untuned_s)


def total_cost_s(table: Table) -> float:
    """Simulated seconds that measuring every point of a table takes."""
    measurer = RecordedMeasurer(table)
    measurer.measure([row.point for row in table.rows])
    return measurer.elapsed_s
