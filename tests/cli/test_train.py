"""`schedenv train`: a policy from tables, interrupted and continued, and what is refused."""

import json
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schedenv.hardware import Hardware
from schedenv.measure.table_file import write_table
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.training import load_policy

from ..recorded_table import make_table
from .conftest import Command

SMALL = [
    word
    for setting in ("environments=8", "rollout_steps=8", "batch_size=32", "epochs=1", "width=16")
    for word in ("--set", setting)
]


def test_a_policy_is_trained_and_the_table_says_what_it_reaches(
    schedenv: Command, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ("--table", "gmm", "--table", "dep", "--held-out", "dep", "--steps", 128)
    done = schedenv("train", *words, *SMALL, "--out", out)
    assert done.code == 0, done.err
    # While it goes on, there may have been lines of progress.
    lines = done.out.splitlines()[-4:]
    assert lines[0].split("  ")[0] == "task"
    assert [line.split()[:2] for line in lines[1:3]] == [
        ["gmm:1x128x128x128", "yes"],
        ["dep:1x28x28x64x3x1x1", "no"],
    ]
    assert lines[3].startswith("ppo trained for 128 steps in ")
    assert lines[3].endswith(
        f"checkpoint in {out}, scalars: tensorboard --logdir {out / 'tensorboard'}"
    )
    policy = load_policy(out)
    assert [task.family for task in policy.info.held_out] == ["dep"]


def test_json_is_one_object(schedenv: Command, tmp_path: Path) -> None:
    words = ("--table", "gmm", "--steps", 64, *SMALL, "--out", tmp_path / "run", "--json")
    done = schedenv("train", *words)
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert (content["steps"], content["interrupted"]) == (64, False)
    assert 0 < content["metrics"]["env/evaluated_share_of_optimum"] <= 1
    words = shlex.split(content["resume"])
    assert words[:4] == ["schedenv", "train", "--table", "gmm"]
    assert words[-1] == "--resume"


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_prints_the_command_that_goes_on(
    schedenv: Command, start: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = start(out, "train", "--table", "gmm", "--seconds", 60, *SMALL)
    end_s = time.monotonic() + 60
    while not (out / "checkpoint.json").exists():
        assert run.process.poll() is None, run.process.communicate()
        assert time.monotonic() < end_s, "no checkpoint"
        time.sleep(0.05)
    run.process.send_signal(signal.SIGINT)
    done = run.wait()
    assert done.code == 130, done.err
    assert "Traceback" not in done.out + done.err
    lines = done.out.splitlines()
    assert lines[-2].startswith("interrupted after ")
    assert lines[-2].endswith("; a checkpoint is kept. Continue with:")
    words = shlex.split(lines[-1])
    assert words[-3:] == ["--out", str(out), "--resume"]
    steps = load_policy(out).info.steps

    done = schedenv(*words[1:], "--steps", steps + 64, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == steps + 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected either --table, for recorded rewards, or --suite or --task with --model"),
        (("--table", "gnn"), "gnn"),
        (("--table", "gmm", "--agent", "random"), "unknown agent that can be trained 'random'"),
        (("--table", "gmm", "--set", "lr=1"), "unknown setting 'lr'"),
        (("--table", "gmm", "--seconds", "0"), "expected --seconds above 0, got 0"),
        (("--table", "gmm", "--scheme", "best"), "expected scheme to be one of"),
        (("--table", "gmm", "--resume"), "holds no run to resume"),
    ],
)
def test_what_cannot_be_used_is_refused(
    schedenv: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = schedenv("train", *words, "--out", tmp_path / "run")
    assert done.code == 2, done.err
    assert message in done.err


@pytest.mark.slow
def test_a_policy_is_trained_on_predictions_and_judged_on_a_held_out_task(
    schedenv: Command,
    hardware: Hardware,
    space_of: Callable[[str], Space],
    tmp_path: Path,
) -> None:
    table, model, out = tmp_path / "gmm.parquet", tmp_path / "model", tmp_path / "run"
    spec = "gmm:1x16x16x16"
    write_table(make_table(resolve(spec), space_of(spec), hardware), table)
    done = schedenv("fit", table, "--kind", "tokens", "--out", model)
    assert done.code == 0, done.err
    words = ("--task", spec, "--model", model, "--held-out", "gmm:1x16x32x16", "--steps", 128)
    done = schedenv("train", *words, *SMALL, "--out", out, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert content["tasks"] == [spec]
    assert content["held_out"] == ["gmm:1x16x32x16"]
    assert content["metrics"]["env/held_out_geomean_speedup"] > 0
    # A cost model knows no optimum.
    assert not any(name.endswith("share_of_optimum") for name in content["metrics"])
    info = load_policy(out).info
    assert (info.reward, info.model) == ("predicted", str(model))
    assert info.tasks[0].fingerprint == hardware.fingerprint
    words = shlex.split(content["resume"])
    done = schedenv(*words[1:], "--steps", 192, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == 192
