"""Runs that are interrupted, killed and continued."""

import json
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

TASK = "gmm:1x32x32x32"
RUN = ("tune", TASK, "--agent", "random", "--seed", "3")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_its_results_and_its_resume_command_works(
    number: signal.Signals, code: int, tmp_path: Path, start: Any, schedenv: Any, rows: Any
) -> None:
    run = start(tmp_path / "run", *RUN, "--seconds", 60)
    run.wait_for_rows(5)
    assert run.workers()
    run.process.send_signal(number)
    done = run.wait()
    assert done.code == code, done.err
    assert "Traceback" not in done.out + done.err
    assert run.workers_after() == []

    lines = [line for line in done.out.splitlines() if line]
    kept = rows(run.out)
    assert len(kept) >= 5
    assert lines[-2].startswith(f"interrupted after {len(kept)} trials in ")
    assert lines[-2].endswith("; every result is kept. Continue with:")
    words = shlex.split(lines[-1])
    assert words == [
        "schedenv", *RUN[:4], "--seconds", "60", "--seed", "3", "--out", str(run.out), "--resume",
    ]  # fmt: skip
    assert not (run.out / "best.json").exists()

    done = schedenv(*words[1:], "--trials", len(kept) + 3, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trials"] == len(kept) + 3
    both = rows(run.out)
    assert both[: len(kept)] == kept
    assert len({canonical for _, canonical, _ in both}) == len(both) == len(kept) + 3


@pytest.mark.slow
def test_an_interrupted_run_as_json_prints_one_object(
    tmp_path: Path, start: Any, rows: Any
) -> None:
    run = start(tmp_path / "run", *RUN, "--seconds", 60, "--json")
    run.wait_for_rows(2)
    run.process.send_signal(signal.SIGINT)
    done = run.wait()
    assert done.code == 130
    content = json.loads(done.out)
    assert content["interrupted"] is True
    assert content["trials"] == len(rows(run.out))
    assert shlex.split(content["resume"])[-1] == "--resume"


@pytest.mark.slow
def test_a_run_killed_in_the_middle_resumes_and_stores_no_program_twice(
    tmp_path: Path, start: Any, schedenv: Any, rows: Any
) -> None:
    run = start(tmp_path / "run", *RUN, "--seconds", 60)
    run.wait_for_rows(5)
    assert run.workers()
    run.process.kill()
    assert run.wait().code == -signal.SIGKILL
    assert run.workers_after() == []
    kept = rows(run.out)

    count = len(kept) + 4
    done = schedenv(*RUN, "--trials", count, "--out", run.out, "--resume", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trials"] == count
    both = rows(run.out)
    assert both[: len(kept)] == kept
    assert len({canonical for _, canonical, _ in both}) == len(both) == count


@pytest.mark.slow
def test_a_finished_run_leaves_no_worker(tmp_path: Path, start: Any) -> None:
    run = start(tmp_path / "run", *RUN, "--trials", 2)
    run.wait_for_rows(1)
    assert run.wait().code == 0
    assert run.workers_after() == []
