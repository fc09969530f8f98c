"""`schedenv records`: what it prints, and what it says when something is wrong."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schedenv import hardware as hw
from schedenv.measure import Result, Status
from schedenv.records import Archive, RecordStore, Run, RunRecords
from schedenv.space import Point, Space
from schedenv.tasks import Task

TASK = "gmm:1x32x32x32"
ESCAPE = "\x1b]0;owned\x07"


@pytest.fixture
def store(tmp_path: Path, tiny_task: Task, tiny_space: Space, hardware: hw.Hardware) -> Path:
    """Two timed points of a task and a crash with a hostile reason."""
    path = tmp_path / "records.sqlite"
    run = Run(
        "r1", tiny_task.content_hash, TASK, "random", 3, "lab-1", {}, "2026-01-01T00:00:00+00:00"
    )
    with RecordStore(path, hardware.fingerprint) as opened:
        records = RunRecords(opened, run)
        for number, sketch in enumerate((0, 1)):
            estimate_s = 2e-6 / (number + 1)
            result = Result(
                point=tiny_space.default(sketch),
                status=Status.OK,
                samples_s=(estimate_s, 2 * estimate_s),
                estimate_s=estimate_s,
            )
            conditions = {"threads": 2}
            records.append(tiny_task.content_hash, TASK, f"form-{number}", result, 0.5, conditions)
        crash = Result(point=Point(0, (1,)), status=Status.CRASH, reason=f"SIGSEGV {ESCAPE}")
        records.append(tiny_task.content_hash, TASK, "form-2", crash, 0.5, {})
    return path


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


# -- list and show ----------------------------------------------------------------------------


def test_list_shows_the_tasks_of_a_store(store: Path, schedenv: Any, tiny_task: Task) -> None:
    done = schedenv("records", "list", store)
    assert done.code == 0, done.err
    assert "gmm:1x32" in done.out
    rows = json.loads(schedenv("records", "list", store, "--json").out)
    assert rows == {
        "rows": [
            {
                "task": TASK,
                "hash": tiny_task.content_hash,
                "hardware": hw.detect().fingerprint,
                "records": 3,
                "best_us": pytest.approx(1.0),
                "statuses": {"ok": 2, "crash": 1},
            }
        ],
        "unreadable": 0,
    }


def test_list_of_a_task_shows_its_records_the_fastest_first(store: Path, schedenv: Any) -> None:
    words = ("records", "list", store, "--task", TASK)
    rows = json.loads(schedenv(*words, "--json").out)["rows"]
    assert [row["id"] for row in rows] == [2, 1, 3]
    assert rows[0]["agent"] == "random"
    rows = json.loads(schedenv(*words, "--status", "crash", "--json").out)["rows"]
    assert [row["id"] for row in rows] == [3]
    done = schedenv(*words, "--limit", 1)
    assert "2 more; show them with --limit 3" in done.out
    assert json.loads(schedenv(*words, "--agent", "greedy", "--json").out)["rows"] == []


def test_show_has_everything_and_the_schedule(
    store: Path, schedenv: Any, tiny_space: Space
) -> None:
    done = schedenv("records", "show", store, 2)
    assert done.code == 0, done.err
    assert tiny_space.describe(tiny_space.default(1)) in done.out
    content = json.loads(schedenv("records", "show", store, 2, "--json").out)
    assert content["samples_s"] == [1e-6, 2e-6]
    assert content["conditions"] == {"threads": 2}
    assert (content["agent"], content["seed"], content["host"]) == ("random", 3, "lab-1")
    assert content["phases"]["build_s"] == 0.0
    assert content["point"] == str(tiny_space.default(1))


def test_stored_text_does_not_act_on_the_terminal(store: Path, schedenv: Any) -> None:
    change(store, f"UPDATE records SET task_name = 'evil{ESCAPE}', digest = ''")
    for words in (("list", store), ("show", store, 3), ("list", store, "--json")):
        done = schedenv("records", *words)
        assert done.code == 0, done.err
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err


def test_a_stored_name_that_is_a_file_is_never_run(
    store: Path, schedenv: Any, tmp_path: Path
) -> None:
    program = tmp_path / "evil.py"
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change(store, f"UPDATE records SET task_name = '{program}:main'")
    done = schedenv("records", "show", store, 2)
    assert done.code == 0
    assert (
        "no schedule shown: the task is a program of a file; name it with --task FILE:NAME"
        in done.out
    )
    assert not (tmp_path / "ran").exists()
    done = schedenv("records", "show", store, 2, "--task", TASK)
    assert "sketch 1 of 3" in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("list", "{missing}"),
            "{missing} does not exist; expected a record store, a run directory or a URL",
        ),
        (
            ("show", "{store}", "99"),
            "{store} has no record 99; list them with: schedenv records list {store} --task TASK",
        ),
        (
            ("list", "{store}", "--status", "fine"),
            "expected --status of ok, constraint, build_error, build_timeout, run_error, "
            "run_timeout, crash, wrong_result, noisy, cancelled, got 'fine'",
        ),
        (
            ("prune", "{store}"),
            "nothing says what to delete; give --status, --task, --agent, --hardware, "
            "--older-than or --keep-best",
        ),
        (
            ("prune", "{store}", "--older-than", "-1"),
            "expected --older-than of 0 to 100,000 days, got -1",
        ),
        (
            ("merge", "{store}", "--to", "{store}"),
            "{store} is both a source and the target; choose another --to",
        ),
        (
            ("rescue", "{store}", "--to", "{store}"),
            "--to {store} exists already; expected a new file",
        ),
        (
            ("rescue", "{missing}", "--to", "{missing}2"),
            "{missing} does not exist; expected the file of a record store",
        ),
        (
            ("list", "mysql://host/name"),
            "expected a store as a path or as postgresql+psycopg://USER@HOST/NAME, got one that "
            "begins with 'mysql'",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], message: str, store: Path, schedenv: Any, tmp_path: Path
) -> None:
    names = {"store": store, "missing": tmp_path / "missing"}
    done = schedenv("records", *(word.format(**names) for word in words))
    assert done == (2, "", f"error: {message.format(**names)}\n")
    assert not (tmp_path / "missing2").exists()


# -- merge, prune, verify, rescue -------------------------------------------------------------


def test_merge_says_what_became_of_each_store(store: Path, schedenv: Any, tmp_path: Path) -> None:
    to = tmp_path / "all.sqlite"
    done = schedenv("records", "merge", store, store, "--to", to, "--json")
    reports = json.loads(done.out)
    assert [(r["added"], r["duplicates"]) for r in reports] == [(3, 0), (0, 3)]
    assert reports[0]["hardware"] == {hw.detect().fingerprint: 3}
    assert "duplicates" in schedenv("records", "merge", store, "--to", to).out


def test_prune_deletes_what_it_said_it_would(store: Path, schedenv: Any) -> None:
    words = ("records", "prune", store, "--keep-best", 1)
    assert schedenv(*words, "--dry-run").out == "would delete 2 records (1 ok, 1 crash)\n"
    with Archive(store) as archive:
        assert len(archive.read().records) == 3
    assert schedenv(*words).out == "deleted 2 records (1 ok, 1 crash)\n"
    with Archive(store) as archive:
        assert [record.id for record in archive.read().records] == [2]
    assert schedenv(*words).out == "deleted 0 records (none)\n"


def test_verify_finds_nothing_wrong_with_a_good_store(store: Path, schedenv: Any) -> None:
    assert schedenv("records", "verify", store) == (
        0,
        "3 records are good, 0 cannot be read\n",
        "",
    )


def test_verify_names_every_record_that_cannot_be_read(store: Path, schedenv: Any) -> None:
    change(store, "UPDATE records SET result = '{' WHERE id = 2")
    done = schedenv("records", "verify", store)
    assert done == (
        1,
        "record 2: Input data was truncated\n"
        "2 records are good, 1 cannot be read\n"
        f"copy the good ones with: schedenv records rescue {store} --to NEW\n",
        "",
    )
    done = schedenv("records", "list", store, "--task", TASK)
    assert done.code == 0
    assert done.err == (
        f"warning: 1 more cannot be read; list them with: schedenv records verify {store}\n"
    )


def test_rescue_says_what_it_saved_and_what_is_lost(
    store: Path, schedenv: Any, tmp_path: Path
) -> None:
    change(store, "PRAGMA wal_checkpoint(TRUNCATE)")
    with store.open("r+b") as file:
        file.write(b"\xff" * 100)
    done = schedenv("records", "verify", store)
    assert done == (
        1,
        "",
        f"error: {store} is damaged (file is not a database); move it away, or rescue what can be "
        f"read with: schedenv records rescue {store} --to NEW\n",
    )
    to = tmp_path / "new.sqlite"
    assert schedenv("records", "rescue", store, "--to", to) == (
        0,
        "damage: file is not a database\n"
        f"3 records copied to {to}\n"
        "  3 of them SQLite itself could not reach any more\n",
        "",
    )
    assert schedenv("records", "verify", to).code == 0


# -- import and runs --------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_exported_can_be_imported(
    store: Path, schedenv: Any, tmp_path: Path, tiny_task: Task, tiny_space: Space
) -> None:
    from schedenv.records.export import export_metaschedule

    point = tiny_space.default(0)
    database = tmp_path / "database"
    export_metaschedule(tiny_task, [(point, 3e-6)], hw.detect().fingerprint, database)
    done = schedenv("records", "import", database, "--task", TASK, "--to", store)
    assert done == (0, "1 records imported, 0 were there already\n", "")
    content = json.loads(schedenv("records", "show", store, 4, "--json").out)
    assert content["point"] == str(point)
    assert content["conditions"]["imported"] == "metaschedule"


@pytest.mark.slow
def test_runs_share_a_store_without_seeing_each_other(
    schedenv: Any, tmp_path: Path, rows: Any
) -> None:
    shared = tmp_path / "lab.sqlite"
    for seed in (1, 2):
        words = ("tune", TASK, "--agent", "random", "--trials", 3, "--seed", seed, "--json")
        out = tmp_path / str(seed)
        done = schedenv(*words, "--out", out, "--store", shared)
        assert done.code == 0, done.err
        assert json.loads(done.out)["trials"] == 3
        assert not (out / "records.sqlite").exists()
    done = schedenv(
        "tune", TASK, "--agent", "random", "--trials", 5, "--seed", 1, "--json",
        "--out", tmp_path / "1", "--store", shared, "--resume",
    )  # fmt: skip
    assert json.loads(done.out)["trials"] == 5
    with Archive(shared) as archive:
        records, runs = archive.read().records, archive.runs()
    assert [runs[str(record.run_id)].seed for record in records] == [1] * 3 + [2] * 3 + [1] * 2
    done = schedenv(
        "tune", TASK, "--agent", "random", "--trials", 5, "--seed", 1, "--out", tmp_path / "1",
        "--resume",
    )  # fmt: skip
    assert done.code == 2
    assert f"holds a run of store '{shared}', not None" in done.err


@pytest.mark.slow
def test_a_run_is_stored_on_postgresql(schedenv: Any, tmp_path: Path) -> None:
    from ..postgres_server import running_server

    with running_server() as server:
        url = server.new_database("lab")
        words = ("tune", TASK, "--agent", "random", "--trials", 3, "--json")
        done = schedenv(*words, "--out", tmp_path / "run", "--store", url)
        assert done.code == 0, done.err
        listed = schedenv("records", "list", url, "--json")
        assert json.loads(listed.out)["rows"][0]["records"] == 3
        done = schedenv("records", "merge", tmp_path / "run", "--to", tmp_path / "mine", "--json")
        assert [report["added"] for report in json.loads(done.out)] == [3]


# -- kill -9 ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_at_random_moments_loses_nothing_and_measures_nothing_twice(
    tmp_path: Path,
) -> None:
    script = Path(__file__).parents[2] / "runs" / "kill_moments.py"
    command = [sys.executable, str(script), "--moments", "3", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| kills | 3 |" in done.stdout
    assert "| records lost | 0 |" in done.stdout
    assert "| programs or points measured twice | 0 |" in done.stdout
