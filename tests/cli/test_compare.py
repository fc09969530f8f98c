"""`schedenv compare`, `schedenv report` and `schedenv evaluate`."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schedenv.comparison.attempts import read_attempts, read_finals

from .conftest import Command, Started, rows


def test_a_race_on_a_table_prints_standings_and_how_to_see_them(
    schedenv: Command, tmp_path: Path
) -> None:
    out = tmp_path / "race"
    race = ("compare", "--tables", "dep", "--agents", "random,greedy", "--seeds", 2)
    done = schedenv(*race, "--trials", 16, "--out", out)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(
        "quality: share of the known optimum's speed after 16 trials, interquartile mean over 1 "
        "tasks x 2 seeds"
    )
    assert [line.split()[0] for line in lines if line.startswith(("random", "greedy"))]
    assert lines[-1] == f"see it with: schedenv report {out}"

    shown = schedenv("report", out)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1] == f"open in a browser: {(out / 'report.html').as_uri()}"
    for name in ("report.html", "report.md", "quality.svg", "tasks.png", "results.csv"):
        assert (out / name).stat().st_size > 500

    again = schedenv(*race, "--trials", 16, "--out", out, "--resume", "--json")
    summary = json.loads(again.out)
    assert [standing["agent"] for standing in summary["standings"]] == ["random", "greedy"]
    assert summary["standings"][0]["attempts"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (),
            "error: expected either --tables, for recorded ones, or --suite or --task, for a race "
            "on this machine; got neither. Shipped tables: c2d, cbr, dep, gmm, sfm, tbg",
        ),
        (
            ("--tables", "dep", "--agents", "random,gredy"),
            "error: unknown agent 'gredy'; did you mean 'greedy' or 'greedy-trees' or "
            "'greedy-prior'? (or name FILE.py:CLASS, or the "
            "folder of a checkpoint)",
        ),
        (
            ("--task", "gmm", "--agents", "gredy"),
            "error: unknown contestant 'gredy'; did you mean 'greedy' or 'greedy-trees' or "
            "'greedy-prior'?",
        ),
        (
            ("--tables", "dep", "--agents", ","),
            "error: expected --agents with one contestant at least, such as random,greedy",
        ),
        (
            ("--tables", "dep", "--agents", "out/nothing"),
            "error: out/nothing holds no checkpoint (checkpoint.json is missing); expected the "
            "--out folder of schedenv train",
        ),
    ],
)
def test_what_cannot_be_raced_is_refused_before_anything_is_run(
    schedenv: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = schedenv("compare", *words, "--out", tmp_path / "race")
    assert (done.code, done.err.strip()) == (2, message)
    assert not (tmp_path / "race").exists()


def test_only_races_have_reports(schedenv: Command, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"command": "train"}')
    done = schedenv("report", tmp_path)
    assert done.code == 2
    assert done.err.strip() == (
        f"error: {tmp_path} holds a run of something else; expected the --out directory of "
        "schedenv compare"
    )


@pytest.mark.slow
def test_a_live_race_that_was_killed_goes_on_where_it_was(
    start: Callable[..., Started], schedenv: Command, tmp_path: Path
) -> None:
    words = ("compare", "--task", "gmm:1x32x32x32", "--agents", "random,droplet", "--seeds", 1,
             "--trials", 24)  # fmt: skip
    out = tmp_path / "race"
    started = start(out, *words)
    names = ("random", "droplet")
    folders = [out / "attempts" / "gmm:1x32x32x32" / name / "0" for name in names]

    def kept() -> int:
        return sum(len(rows(folder)) for folder in folders)

    end_s = time.monotonic() + 240
    while kept() < 30:  # one attempt is over, the other one is going on
        assert started.process.poll() is None, started.process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.05)
    started.process.kill()
    started.process.communicate()
    assert started.workers_after() == []
    assert len(read_attempts(out)) == 1
    before = kept()
    done = schedenv(*words, "--out", out, "--resume")
    assert done.code == 0, done.err
    made = read_attempts(out)
    assert {key[1] for key in made} == set(names)
    assert all(attempt.trials == 24 for attempt in made.values())
    # What had been measured was not measured again.
    assert before < kept() == 48
    (finals,) = read_finals(out).values()
    assert {one.agent for one in finals.results} == set(names)
    assert all(one.latency_s <= finals.untuned_s * 1.05 for one in finals.results)


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_beside_itself_untrained_and_random_search(
    schedenv: Command, tmp_path: Path
) -> None:
    small = [word for name in ("environments=8", "rollout_steps=8", "batch_size=32", "width=16")
             for word in ("--set", name)]  # fmt: skip
    done = schedenv("train", "--table", "gmm", "--steps", 128, *small, "--out", tmp_path / "ppo")
    assert done.code == 0, done.err
    words = ("evaluate", tmp_path / "ppo", "--tables", "gmm,dep", "--seeds", 2, "--trials", 32)
    done = schedenv(*words, "--out", tmp_path / "judged")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    (heading,) = [line for line in lines if line.startswith("agent")]
    assert heading.split() == ["agent", "zero-shot", "8", "trials", "16", "trials", "32", "trials"]
    names = ("trained", "untrained", "random")
    rows = {name: next(line for line in lines if line.startswith(name)) for name in names}
    assert all(0 < float(cell) <= 1 for row in rows.values() for cell in row.split()[1:])
    assert lines[-2] == "trained on these, which is no test: gmm"
    assert lines[-1] == f"see it with: schedenv report {tmp_path / 'judged'}"
