"""Records that somebody wrote to do harm: huge, deep, acting on the terminal, running code."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedenv.errors import CorruptStoreError, StoreError
from schedenv.measure import Result, Status
from schedenv.records import Archive, RecordStore
from schedenv.records.printable import printable
from schedenv.space import Point

from .helpers import HERE, execute, forms, written

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"


def planted(path: Path, column: str, value: Any) -> Path:
    """A store of three records, the second one tampered with."""
    written(path, 3)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"UPDATE records SET digest = '', {column} = ? WHERE id = 2", [value])
    connection.close()
    return path


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("result", "x" * (100 << 20), "it has 1048"),
        ("conditions", '{"a": "' + "x" * (2 << 20) + '"}', "it has 2"),
        ("task_name", "../" * (1 << 20), "it has 3"),
        ("canonical", "c" * (2 << 20), "it has 2"),
        ("result", '{"a":' * 100_000 + "1" + "}" * 100_000, "its JSON is nested too deeply"),
        ("result", '{"point":' + "[" * 100_000 + "]" * 100_000 + "}", "Expected `int`"),
        ("conditions", "[" * 100_000 + "]" * 100_000, "Expected `object`"),
        ("conditions", '{"a":' * 100_000 + "1" + "}" * 100_000, "its JSON is nested too deeply"),
        (
            "result",
            '{"point":[0,[' + ",".join(["1"] * 20_000) + ']],"status":"ok"}',
            "its point has 20000 values",
        ),
        ("result", '{"point":[0,[1]],"status":"splendid"}', "Invalid enum value"),
        ("result", '{"point":[0,[1e99]],"status":"ok"}', "Expected `int`"),
        ("result", '{"point":[0,[1]],"status":"ok","samples_s":[NaN]}', "JSON is malformed"),
        ("result", b"\xff\xfe\x00", "Expected `str`"),
        ("elapsed_s", "soon", "Expected `float`"),
        ("space_version", 1 << 62, None),
        ("fingerprint", ESCAPE, None),
    ],
)
@pytest.mark.filterwarnings("ignore::schedenv.errors.UnreadableRecordsWarning")
def test_a_hostile_row_hides_no_other(
    column: str, value: Any, reason: str | None, tmp_path: Path
) -> None:
    path = planted(tmp_path / "r.sqlite", column, value)
    with Archive(path) as archive:
        reading = archive.read()
    assert {1, 3} <= {record.id for record in reading.records}
    if reason is not None:
        assert [row.id for row in reading.unreadable] == [2]
        assert reading.unreadable[0].reason.startswith(reason)
    with RecordStore(path, HERE, allow_foreign=True) as store:
        assert {"form-0", "form-2"} <= set(forms(store))


def test_text_from_a_file_does_not_reach_the_terminal_in_a_message(tmp_path: Path) -> None:
    path = planted(tmp_path / "r.sqlite", "fingerprint", ESCAPE)
    with pytest.raises(StoreError) as raised:
        RecordStore(path, HERE)
    assert "\\x1b]0;owned\\x07\\x1b[2J\\u202e" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
        "CREATE VIEW v AS SELECT * FROM records",
    ],
)
def test_a_file_that_would_run_code_is_refused(statement: str, tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, statement)
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} has 1 views or triggers, and a record store has none; it was not written by "
        f"schedenv. Copy its records with: schedenv records rescue {path} --to NEW"
    )


@pytest.mark.parametrize("version", ["", "-1", "two", "9" * 400, "\x1b[31m", "\u0663"])
def test_a_schema_version_that_is_no_number_is_refused(version: str, tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, f"UPDATE about SET value = '{version}'")
    with pytest.raises(CorruptStoreError, match="does not say its schema version") as raised:
        RecordStore(path, HERE)
    assert str(raised.value).isprintable()


def test_a_reason_too_long_to_be_read_back_is_cut_when_it_is_stored(tmp_path: Path) -> None:
    result = Result(point=Point(0, (1,)), status=Status.CRASH, reason="last words " * 200_000)
    with RecordStore(tmp_path / "r.sqlite", HERE) as store:
        store.append("task", "gmm", "form", result, 0.0, {})
        (record,) = store.records(strict=True)
    assert record.result.reason is not None
    assert record.result.reason.startswith("last words last words")
    assert record.result.reason.endswith(" ... (cut)")


def test_a_result_too_long_to_be_read_back_is_not_stored(tmp_path: Path) -> None:
    result = Result(point=Point(0, (1,) * 20_000), status=Status.OK)
    with (
        RecordStore(tmp_path / "r.sqlite", HERE) as store,
        pytest.raises(StoreError, match="is more than a store takes"),
    ):
        store.append("task", "gmm", "form", result, 0.0, {})


def test_bytes_that_are_no_text_are_stored_as_question_marks(tmp_path: Path) -> None:
    result = Result(point=Point(0, (1,)), status=Status.CRASH, reason="not \udcff text")
    with RecordStore(tmp_path / "r.sqlite", HERE) as store:
        store.append("task", "na\udcffme\0", "form", result, 0.0, {})
        (record,) = store.records(strict=True)
    assert (record.task_name, record.result.reason) == ("na?me?", "not ? text")


def test_samples_that_are_no_numbers_are_not_stored(tmp_path: Path) -> None:
    result = Result(point=Point(0, (1,)), status=Status.NOISY, samples_s=(float("nan"), 1.0))
    with (
        RecordStore(tmp_path / "r.sqlite", HERE) as store,
        pytest.raises(StoreError, match="samples that are no finite numbers"),
    ):
        store.append("task", "gmm", "form", result, 0.0, {})


# -- printing ---------------------------------------------------------------------------------


@given(text=st.text(max_size=200), limit=st.integers(1, 50))
def test_printable_text_acts_on_no_terminal(text: str, limit: int) -> None:
    assert not set(map(ord, printable(text))) & {*range(32), *range(127, 160), 0x202E, 0x2066}
    assert len(printable(text, limit=limit)) <= limit
    printable(text).encode()


def test_what_is_harmless_is_left_alone() -> None:
    assert printable("gmm:1x512 Größe 速い 🚀 [bold]") == "gmm:1x512 Größe 速い 🚀 [bold]"
    assert printable("a\nb\tc") == "a\\x0ab\\x09c"
    assert printable("a\nb", lines=True) == "a\nb"
    assert printable("\u202e\U000e0041") == "\\u202e\\U000e0041"
    assert printable("abcdef", limit=4) == "abc…"
