"""The measurer that answers from a table."""

import msgspec
import pytest

from schedenv.errors import PointNotRecordedError
from schedenv.hardware import Hardware
from schedenv.measure import Phases, Result, Status
from schedenv.measure.recorded import RecordedMeasurer, total_cost_s
from schedenv.measure.table import Table
from schedenv.space import UNTUNED, Space
from schedenv.tasks import Task

from ..recorded_table import make_table

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def table(tiny_task: Task, tiny_space: Space, hardware: Hardware) -> Table:
    return make_table(tiny_task, tiny_space, replace_cores(hardware, 4))


def replace_cores(hardware: Hardware, cores: int) -> Hardware:
    from dataclasses import replace

    return replace(hardware, cores=cores)


def test_there_is_one_result_a_point_in_order_and_failures_are_statuses(table: Table) -> None:
    points = [row.point for row in table.rows][::-1]
    told: list[Result] = []
    results = RecordedMeasurer(table).measure(points, 1e-9, told.append)
    assert [result.point for result in results] == points
    assert results == told
    assert results == [table.by_point[point].result() for point in points]
    assert {result.status for result in results} == {Status.OK, Status.WRONG_RESULT}
    assert not any(result.repeated for result in results)


def test_each_answer_is_charged_what_it_cost_with_builds_in_parallel(table: Table) -> None:
    measurer = RecordedMeasurer(table)
    clock = [measurer.clock()]
    for row in table.rows[:5]:
        measurer.measure([row.point])
        phases = row.phases
        building_s = phases.apply_s + phases.build_s + phases.jit_s
        clock.append(clock[-1] + building_s / 4 + phases.verify_s + phases.run_s)
        assert measurer.clock() == pytest.approx(clock[-1])


def test_neither_order_nor_batches_change_the_total(table: Table) -> None:
    points = [row.point for row in table.rows]
    whole, parts = RecordedMeasurer(table), RecordedMeasurer(table)
    whole.measure(points)
    for point in reversed(points):
        parts.measure([point])
    assert parts.elapsed_s == pytest.approx(whole.elapsed_s)
    assert total_cost_s(table) == whole.elapsed_s


def test_the_clock_has_advanced_when_a_result_is_announced(table: Table) -> None:
    measurer = RecordedMeasurer(table)
    times: list[float] = []
    measurer.measure(
        [row.point for row in table.rows], None, lambda _: times.append(measurer.clock())
    )
    assert times == sorted(set(times))
    assert times[-1] == measurer.clock()


def test_an_equal_program_is_answered_once_and_then_costs_its_applying(table: Table) -> None:
    one, other = table.rows[0], table.rows[1]
    twins = (one, replace(one, point=other.point, phases=other.phases), *table.rows[2:])
    measurer = RecordedMeasurer(Table(table.info, twins))
    told: list[Result] = []
    first, second = measurer.measure([one.point, other.point], None, told.append)
    assert told == [first]
    assert second.repeated
    assert second.point == other.point
    assert second.estimate_s == first.estimate_s
    spent_s = measurer.clock()
    measurer.measure([other.point])
    assert measurer.clock() - spent_s == pytest.approx(other.phases.apply_s / 4)
    assert second.phases == Phases(apply_s=other.phases.apply_s)


def test_what_an_earlier_run_measured_is_a_repetition(table: Table) -> None:
    measurer = RecordedMeasurer(table)
    measurer.remember([table.rows[0].result()])
    assert measurer.measure([table.rows[0].point])[0].repeated


def test_the_untuned_program_costs_nothing(table: Table) -> None:
    measurer = RecordedMeasurer(table)
    (result,) = measurer.measure([UNTUNED])
    assert result.ok
    assert result.estimate_s == table.info.untuned_s
    assert measurer.clock() == 0


def test_a_point_that_is_not_recorded_is_refused_and_nothing_is_charged(
    table: Table, tiny_space: Space
) -> None:
    measurer = RecordedMeasurer(table)
    outside = tiny_space.default()
    with pytest.raises(PointNotRecordedError) as raised:
        measurer.measure([table.rows[0].point, outside])
    assert str(raised.value) == (
        f"{outside} is not one of the {len(table.rows)} points of the recorded table "
        "gmm:1x32x32x32; ask for points of its own space (Table.space()), or record a table that "
        "holds it: schedenv record gmm:1x32x32x32 --restrict JSON --out FILE"
    )
    assert measurer.clock() == 0


def test_closing_twice_is_fine(table: Table) -> None:
    measurer = RecordedMeasurer(table)
    measurer.close()
    measurer.close()
