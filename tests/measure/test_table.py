"""Recorded tables: what is written is read, and nothing else is."""

import builtins
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.errors import (
    CorruptTableError,
    ForeignTableError,
    InputError,
    MissingExtraError,
    OutputDirError,
    TableError,
)
from schedenv.hardware import Hardware
from schedenv.measure import Status
from schedenv.measure.table import FORMAT_VERSION, Optimum, Table
from schedenv.measure.table_file import INFO_KEY, read_table, shipped_tables, write_table
from schedenv.space import Space
from schedenv.tasks import Task

from ..recorded_table import make_table

replace = msgspec.structs.replace

reuses_fixtures = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def table(tiny_task: Task, tiny_space: Space, hardware: Hardware) -> Table:
    return make_table(tiny_task, tiny_space, hardware)


@pytest.fixture(scope="module")
def path(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "gmm.parquet"
    write_table(table, path)
    return path


def with_info(path: Path, change: Callable[[dict[str, Any]], None], to: Path) -> Path:
    """A copy of a table whose metadata was changed by hand."""
    content = pq.read_table(path)
    metadata = dict(pq.read_metadata(path).metadata)
    info = msgspec.json.decode(metadata[INFO_KEY])
    change(info)
    metadata[INFO_KEY] = msgspec.json.encode(info)
    with pq.ParquetWriter(to, content.schema) as writer:
        writer.write_table(content)
        writer.add_key_value_metadata(metadata)
    return to


def test_a_table_is_read_as_it_was_written(table: Table, path: Path) -> None:
    read = read_table(path)
    assert read == table
    assert read.source == str(path)
    assert not path.with_name("gmm.parquet.partial").exists()


def test_the_space_of_a_table_is_the_one_that_was_measured(path: Path, tiny_space: Space) -> None:
    space = read_table(path).space()
    for point in space.points():
        assert space.canonical(point) == tiny_space.canonical(point)
        assert set(space.neighbours(point)) - {
            neighbour for neighbour in space.neighbours(point) if neighbour.sketch != point.sketch
        } <= set(tiny_space.neighbours(point))


def test_any_parquet_reader_can_read_the_rows(table: Table, path: Path) -> None:
    columns = pq.read_table(path)
    assert columns.num_rows == len(table.rows)
    assert columns.column("status").to_pylist() == [row.status.value for row in table.rows]
    assert columns.schema.field("estimate_s").type == pa.float32()


@given(data=st.data())
@reuses_fixtures
def test_a_damaged_table_is_refused_whichever_byte_is_wrong(
    path: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(content)
    # A byte may mean nothing, such as one of a statistic or of the writer's name.
    with contextlib.suppress(TableError):
        assert read_table(damaged) == read_table(path)


@given(data=st.data())
@reuses_fixtures
def test_a_truncated_table_is_refused_wherever_it_is_cut(
    path: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = path.read_bytes()
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(TableError):
        read_table(cut)


def test_a_table_whose_content_was_edited_is_refused(path: Path, tmp_path: Path) -> None:
    edited = with_info(path, lambda info: info["task"].update(name="other"), tmp_path / "e.parquet")
    with pytest.raises(CorruptTableError) as raised:
        read_table(edited)
    assert str(raised.value) == (
        f"{edited} is damaged (its content does not match its digest); get it again, or record it "
        "again with schedenv record"
    )


def test_a_newer_table_is_refused_with_both_versions(path: Path, tmp_path: Path) -> None:
    def change(info: dict[str, Any]) -> None:
        info.update(format_version=FORMAT_VERSION + 1, colour="green")

    newer = with_info(path, change, tmp_path / "newer.parquet")
    with pytest.raises(ForeignTableError) as raised:
        read_table(newer)
    assert str(raised.value) == (
        f"{newer} has table format {FORMAT_VERSION + 1}, this schedenv reads up to "
        f"{FORMAT_VERSION}; upgrade schedenv"
    )


def test_a_parquet_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1, 2]}), other)
    with pytest.raises(ForeignTableError) as raised:
        read_table(other)
    assert str(raised.value) == (
        f"{other} is a Parquet file but not a recorded table; expected one that schedenv record "
        "wrote"
    )


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "records.sqlite"
    other.write_bytes(b"SQLite format 3\0")
    with pytest.raises(ForeignTableError) as raised:
        read_table(other)
    assert str(raised.value) == (
        f"{other} is not a Parquet file; expected one that schedenv record wrote"
    )


def test_a_missing_table_is_refused_with_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_table(tmp_path / "gone.parquet")
    assert str(raised.value) == (
        f"there is no recorded table {tmp_path / 'gone.parquet'}; expected a file that schedenv "
        f"record wrote (shipped tables: {', '.join(shipped_tables()) or 'none'})"
    )


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_table(tmp_path)
    assert str(raised.value) == f"the recorded table {tmp_path} cannot be read (Is a directory)"


def test_metadata_nested_without_end_is_refused(path: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep.parquet"
    content = pq.read_table(path)
    with pq.ParquetWriter(deep, content.schema) as writer:
        writer.write_table(content)
        writer.add_key_value_metadata({INFO_KEY: b'{"a":' + b"[" * 100_000})
    with pytest.raises(CorruptTableError):
        read_table(deep)


def test_a_file_that_cannot_be_written_is_named(table: Table, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "gmm.parquet"
    with pytest.raises(OutputDirError) as raised:
        write_table(table, out)
    assert str(raised.value) == (f"{out} cannot be written (File exists); choose another --out")


def test_without_pyarrow_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError) as raised:
        read_table(path)
    assert str(raised.value) == (
        "reading a recorded table needs the package 'pyarrow', which is not installed; "
        "run: pip install 'schedenv[tables]'"
    )


# -- tables that contradict themselves --------------------------------------------------------


def first_ok(table: Table) -> int:
    return next(index for index, row in enumerate(table.rows) if row.status is Status.OK)


def with_row(table: Table, index: int, **changes: Any) -> Table:
    rows = list(table.rows)
    rows[index] = replace(rows[index], **changes)
    return Table(table.info, tuple(rows))


def check_fails(table: Table) -> str:
    with pytest.raises(ValueError, match=r"the") as raised:
        table.check()
    return str(raised.value)


def test_a_good_table_passes(table: Table) -> None:
    table.check()


def test_a_point_that_is_there_twice(table: Table) -> None:
    one = table.rows[0].point
    assert check_fails(with_row(table, 1, point=one)) == f"the point {one} is there twice"


def test_a_point_that_no_knob_can_hold(table: Table) -> None:
    row = table.rows[0]
    wrong = row.point._replace(values=(7, *row.point.values[1:]))
    assert check_fails(with_row(table, 0, point=wrong)) == (
        f"Z.v_b of the point {wrong} cannot be {[7, *row.point.values[1:4]]}"
    )
    short = row.point._replace(values=row.point.values[1:])
    assert check_fails(with_row(table, 0, point=short)) == (
        f"the point {short} does not have {len(row.point.values)} values"
    )
    lost = row.point._replace(sketch=77)
    assert check_fails(with_row(table, 0, point=lost)) == (
        f"the point {lost} is of an unknown sketch"
    )


def test_times_that_cannot_be(table: Table) -> None:
    index = first_ok(table)
    point = table.rows[index].point
    for bad in (0.0, -1.0, np.inf, np.nan):
        assert check_fails(with_row(table, index, samples_s=(1e-6, bad))) == (
            f"the point {point} has times that are not positive"
        )
    phases = replace(table.rows[index].phases, build_s=-1.0)
    assert check_fails(with_row(table, index, phases=phases)) == (
        f"the point {point} has phases that are negative"
    )
    assert check_fails(with_row(table, index, low_s=1.0)) == (
        f"the estimate of the point {point} is not within its interval"
    )


def test_a_status_that_does_not_fit_the_numbers(table: Table) -> None:
    index = first_ok(table)
    point = table.rows[index].point
    assert check_fails(with_row(table, index, status=Status.CRASH)) == (
        f"the point {point} failed, and yet has an estimate or no reason"
    )
    assert check_fails(with_row(table, index, estimate_s=None)) == (
        f"the point {point} is ok, and yet has no estimate or no samples"
    )


def test_an_optimum_that_is_not_the_fastest(table: Table) -> None:
    slower = next(row for row in table.rows if row.estimate_s and row.estimate_s > table.optimum_s)
    wrong = Optimum(str(slower.point), slower.estimate_s or 0.0, False, (str(slower.point),))
    info = replace(table.info, optimum=wrong)
    assert check_fails(Table(info, table.rows)) == (
        f"{slower.point} is not the fastest of its points"
    )


# -- what is shipped --------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_tables())
def test_a_shipped_table_is_good_and_its_optimum_can_be_reached(name: str) -> None:
    table = read_table(shipped_tables()[name])
    assert table.info.components == table.space().components() == 1
    assert 500 <= len(table.rows) <= 3000
    assert table.info.optimum.is_finalist
