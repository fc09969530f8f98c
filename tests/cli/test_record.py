"""The command `schedenv record`."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedenv.cli.record import resume_command
from schedenv.measure.table_file import read_table
from schedenv.tuning import Budget
from schedenv.tuning.simulate import simulate

from .conftest import Command, Started

TASK = "gmm:1x32x32x32"


def test_the_file_to_write_must_be_named(schedenv: Command) -> None:
    done = schedenv("record", TASK)
    assert done.code == 2
    assert "--out" in done.err


def test_a_restriction_that_is_no_json_is_refused(schedenv: Command, tmp_path: Path) -> None:
    done = schedenv("record", TASK, "--restrict", "{x", "--out", tmp_path / "t.parquet")
    assert done.code == 2
    assert done.err.startswith("error: expected a restriction such as ")


def test_a_restriction_in_a_file_that_is_not_there_is_refused(
    schedenv: Command, tmp_path: Path
) -> None:
    missing = tmp_path / "part.json"
    done = schedenv("record", TASK, "--restrict", missing, "--out", tmp_path / "t.parquet")
    assert done.code == 2
    assert done.err.strip() == (
        f"error: --restrict {missing} is neither JSON nor a file that can be read ([Errno 2] No "
        f"such file or directory: '{missing}')"
    )


def test_no_points_at_all_are_refused(schedenv: Command, tmp_path: Path) -> None:
    done = schedenv("record", TASK, "--points", 0, "--out", tmp_path / "t.parquet")
    assert done.code == 2
    assert done.err.strip() == "error: expected at least 1 point, got 0"


def test_the_command_that_goes_on_repeats_what_was_asked() -> None:
    assert resume_command("core/gmm-2", Path("my table.parquet"), 40, '{"sketches":{}}', 2, 7) == (
        "schedenv record core/gmm-2 --points 40 --restrict '{\"sketches\":{}}' --looks 2 --seed 7 "
        "--out 'my table.parquet' --resume"
    )


def stored(records: Path) -> int:
    path = records / "records.sqlite"
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("select count(*) from records").fetchone()[0])
    except sqlite3.OperationalError:  # the table is not made yet
        return 0
    finally:
        connection.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_recording_is_interrupted_goes_on_and_its_table_can_be_searched(
    start: Callable[..., Started], schedenv: Command, tmp_path: Path
) -> None:
    out = tmp_path / "table.parquet"
    records = tmp_path / "table.parquet.records"
    words = ("record", TASK, "--points", "40", "--looks", "2")
    first = start(out, *words)
    while stored(records) < 20:
        assert first.process.poll() is None, first.process.communicate()
        time.sleep(0.1)
    first.process.send_signal(signal.SIGINT)
    ended = first.wait()
    assert ended.code == 130
    assert "interrupted; every result is kept. Continue with:" in ended.err
    assert f"schedenv record {TASK} --points 40" in ended.err
    assert not out.exists()
    assert first.workers_after() == []

    kept = stored(records)
    done = schedenv(*words, "--out", out, "--resume", "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    table = read_table(out)
    assert summary["points"] == len(table.rows) <= 40
    assert summary["optimum"]["point"] == table.info.optimum.point
    programs = len({row.canonical for row in table.rows})
    assert stored(records) >= max(kept, 1 + programs)
    run = simulate(table, "random", Budget(trials=10), 0)
    assert 0 < run.fraction_at(run.elapsed_s) <= 1
