"""`schedenv tune` for real: files, resuming, programs of the user, refusals."""

import csv
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TASK = "gmm:1x32x32x32"
RUN = ("tune", TASK, "--agent", "random", "--seed", "1")

PROGRAMS = """
from tvm import te
from tvm.script import tirx as T


def rowsum():
    a = te.placeholder((16, 24), name="a")
    k = te.reduce_axis((0, 24), name="k")
    return [a, te.compute((16,), lambda i: te.sum(a[i, k], axis=k), name="b")]


@T.prim_func(s_tir=True)
def double(X: T.Buffer((16, 16), "float32"), Y: T.Buffer((16, 16), "float32")):
    for i, j in T.grid(16, 16):
        with T.sblock("Y"):
            v, w = T.axis.remap("SS", [i, j])
            Y[v, w] = X[v, w] * T.float32(2)
"""


@pytest.fixture
def run(tmp_path: Path, schedenv: Any) -> Path:
    """The directory of a finished run of 6 trials."""
    done = schedenv(*RUN, "--trials", 6, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    return tmp_path / "run"


def fake_run(out: Path, **changes: Any) -> Path:
    """A run directory as far as `tune` looks before it opens the store."""
    from schedenv.tasks import resolve

    task = resolve(TASK)
    run = {"task": task.spec, "task_hash": task.content_hash, "agent": "random", "seed": 1}
    out.mkdir()
    (out / "run.json").write_text(json.dumps({**run, **changes}))
    return out


# -- a whole run ------------------------------------------------------------------------------


def test_a_run_writes_its_files_and_resuming_measures_only_what_is_new(
    tmp_path: Path, schedenv: Any, rows: Any, short_finals: None
) -> None:
    out = tmp_path / "run"
    done = schedenv(*RUN, "--trials", 6, "--out", out, "--json")
    assert done.code == 0, done.err
    best = json.loads(done.out)
    assert best.pop("out") == str(out)
    assert best == json.loads((out / "best.json").read_text())
    assert {name.name for name in out.iterdir()} >= {
        "best.json",
        "curve.csv",
        "run.json",
        "records.sqlite",
    }
    assert best["task"] == TASK
    assert best["trials"] == 6
    assert sum(best["counts"].values()) == 6
    assert 0 <= best["verified"]["max_error_of_tolerated"] <= 1
    for side in ("tuned", "baseline"):
        timing = best[side]
        assert 0 < timing["low_us"] <= timing["latency_us"] <= timing["high_us"]
        assert len(timing["samples_us"]) >= 2
    ratio = best["baseline"]["latency_us"] / best["tuned"]["latency_us"]
    expected = ratio if best["point"] is not None else 1.0
    assert best["speedup"]["estimate"] == pytest.approx(expected)
    assert best["speedup"]["low"] <= best["speedup"]["estimate"] <= best["speedup"]["high"]

    told = json.loads((out / "run.json").read_text())
    assert (told["task"], told["agent"], told["trials"], told["seconds"], told["seed"]) == (
        TASK, "random", 6, None, 1,
    )  # fmt: skip
    assert told["task_hash"] == best["task_hash"]
    assert told["hardware"]["cores"] >= 1
    assert told["peaks"]["flops_per_s"] > 0
    assert set(told["versions"]) == {"schedenv", "apache-tvm", "apache-tvm-ffi", "numpy"}

    with (out / "curve.csv").open() as file:
        curve = list(csv.reader(file))
    assert curve[0] == ["seconds", "trials", "best_us"]
    latencies = [float(row[2]) for row in curve[1:]]
    assert latencies
    assert latencies == sorted(latencies, reverse=True)

    first = rows(out)
    assert len(first) == 6
    done = schedenv(*RUN, "--trials", 10, "--out", out, "--json", "--resume")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trials"] == 10
    second = rows(out)
    assert len(second) == 10
    assert second[:6] == first
    assert len({canonical for _, canonical, _ in second}) == 10


@pytest.mark.slow
def test_the_last_lines_say_what_was_found_and_how_to_go_on(tmp_path: Path, schedenv: Any) -> None:
    out = tmp_path / "run"
    done = schedenv(*RUN, "--trials", 3, "--out", out)
    assert done.code == 0, done.err
    best = json.loads((out / "best.json").read_text())
    lines = [line for line in done.out.splitlines() if line]
    counts = ", ".join(f"{count} {status}" for status, count in best["counts"].items())
    assert f"3 trials in {round(best['elapsed_s'])} s ({counts})" in " ".join(lines[-2:])
    if best["point"] is None:
        assert lines[-2].startswith("nothing beat the untuned program (")
        assert lines[-1] == (
            f"  schedenv tune {TASK} --agent random --trials 12 --seed 1 --out {out} --resume"
        )
    else:
        assert lines[-2].startswith(f"{TASK}: {best['tuned']['latency_us']:.1f} us (95 % ")
        assert lines[-1].endswith(
            f"use it with: schedenv export {out} --format metaschedule --to {out}/database"
        )


@pytest.mark.slow
@pytest.mark.parametrize("function", ["rowsum", "double"])
def test_a_program_of_the_user_is_tuned(
    function: str, tmp_path: Path, schedenv: Any, rows: Any
) -> None:
    (tmp_path / "program.py").write_text(PROGRAMS)
    out = tmp_path / "run"
    spec = f"{tmp_path}/program.py:{function}"
    done = schedenv("tune", spec, "--agent", "random", "--trials", 4, "--out", out, "--json")
    assert done.code == 0, done.err
    best = json.loads(done.out)
    assert best["task"] == spec
    assert best["counts"].get("ok", 0) >= 1, best["counts"]
    assert best["verified"]["max_error_of_tolerated"] <= 1
    assert len(rows(out)) == best["trials"]


# -- refusals before a store is opened --------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((TASK, "--trials", 0), "expected --trials of at least 1, got 0"),
        ((TASK, "--trials", -3), "expected --trials of at least 1, got -3"),
        ((TASK, "--seconds", 0), "expected --seconds above 0, got 0"),
        ((TASK, "--seconds", -1), "expected --seconds above 0, got -1"),
        ((TASK, "--seconds", "nan"), "expected --seconds above 0, got nan"),
        (
            (TASK, "--agent", "gredy"),
            "unknown agent 'gredy'; did you mean 'greedy' or 'greedy-trees' or "
            "'greedy-prior'? (or name FILE.py:CLASS, or the folder "
            "of a checkpoint)",
        ),
        (("gmmm:1x2x3x4",), "unknown operator or suite 'gmmm'; did you mean 'gmm'?"),
        (
            ("GMM:1x2x3x4",),
            "unknown operator or suite 'GMM'; known: ",
        ),
        (("ansr/gmm-2",), "unknown suite 'ansr'; did you mean 'ansor'?"),
        (
            ("core/gmm-22",),
            "unknown core member 'gmm-22'; did you mean 'gmm-2' or 'gmm-0' or 'nrm-2'?",
        ),
        (
            ("core",),
            "'core' is a suite of 13 tasks, and one task is expected; "
            "name a member, for example 'core/gmm-0'",
        ),
        (
            ("gmm:1x2x3",),
            "bad shape '1x2x3' for gmm: expected 4 numbers, got 3; "
            "expected gmm:BxNxMxK, for example 'gmm:1x128x128x128'",
        ),
        (
            ("gmm:1x2x3xfour",),
            "bad shape '1x2x3xfour' for gmm: K must be a positive integer, got 'four'; "
            "expected gmm:BxNxMxK, for example 'gmm:1x128x128x128'",
        ),
        (
            ("gmm:1x2x0x4",),
            "bad shape '1x2x0x4' for gmm: M must be a positive integer, got '0'; "
            "expected gmm:BxNxMxK, for example 'gmm:1x128x128x128'",
        ),
        ((f"{TASK}@int8",), "unsupported dtype 'int8' for gmm; expected float32 or float64, "),
        (("",), "empty task; expected one of 'gmm', "),
        (
            ("missing.py:f",),
            "missing.py:f: there is no file 'missing.py'",
        ),
        (
            ("model.onnx",),
            "there is no file 'model.onnx'; check the path",
        ),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(
    words: tuple[object, ...], message: str, tmp_path: Path, schedenv: Any
) -> None:
    done = schedenv("tune", *words, "--out", tmp_path / "run")
    assert done.code == 2
    text = done.err.strip()
    assert "\n" not in text
    if message[-1] in " )" or message.endswith("'missing.py'"):
        assert text.startswith(f"error: {message}")
    else:
        assert text == f"error: {message}"
    assert not (tmp_path / "run").exists()


def test_a_task_too_large_for_memory_is_refused_with_both_amounts(
    tmp_path: Path, schedenv: Any
) -> None:
    done = schedenv("tune", "gmm:1x200000x200000x200000", "--out", tmp_path / "run")
    assert done.code == 1
    amount = r"\d+\.\d [MGTP]iB"
    assert re.fullmatch(
        rf"error: gmm:1x200000x200000x200000 needs {amount} of memory \(two sets of inputs, "
        rf"outputs, their float64 reference and working copies\), but {amount} are available; "
        r"choose a smaller shape or free memory\n",
        done.err,
    )
    assert not (tmp_path / "run").exists()


def test_a_function_that_the_file_does_not_define_is_refused(tmp_path: Path, schedenv: Any) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAMS)
    done = schedenv("tune", f"{path}:rowsums", "--out", tmp_path / "run")
    assert (done.code, done.err) == (
        2,
        f"error: {path}:rowsums: the file {str(path)!r} does not define 'rowsums'; "
        "did you mean 'rowsum'?\n",
    )


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path: Path, schedenv: Any) -> None:
    out = fake_run(tmp_path / "run")
    before = (out / "run.json").read_bytes()
    done = schedenv(*RUN, "--trials", 3, "--out", out)
    assert (done.code, done.err) == (
        2,
        f"error: --out {out} already holds a run; "
        "continue it with --resume, or choose another --out\n",
    )
    assert (out / "run.json").read_bytes() == before


def test_a_directory_without_a_run_cannot_be_resumed(tmp_path: Path, schedenv: Any) -> None:
    done = schedenv(*RUN, "--trials", 3, "--out", tmp_path / "run", "--resume")
    assert (done.code, done.err) == (
        2,
        f"error: --out {tmp_path}/run holds no run to resume; leave --resume out to start one\n",
    )


@pytest.mark.parametrize(
    ("changes", "key", "ours"),
    [({"seed": 7}, "seed 7", "1"), ({"agent": "greedy"}, "agent 'greedy'", "'random'")],
)
def test_a_run_of_another_seed_or_agent_is_not_resumed(
    changes: dict[str, Any], key: str, ours: str, tmp_path: Path, schedenv: Any
) -> None:
    out = fake_run(tmp_path / "run", **changes)
    done = schedenv(*RUN, "--trials", 3, "--out", out, "--resume")
    assert (done.code, done.err) == (
        2,
        f"error: --out {out} holds a run of {key}, not {ours}; "
        "repeat the command that started it with --resume, or choose another --out\n",
    )


def test_an_out_that_is_a_file_is_refused(tmp_path: Path, schedenv: Any) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    done = schedenv(*RUN, "--trials", 3, "--out", path)
    assert (done.code, done.err) == (
        2,
        f"error: --out {path} is a file; expected a directory, or a new name\n",
    )
    assert path.read_text() == "mine"


def test_an_out_below_a_file_cannot_be_written(tmp_path: Path, schedenv: Any) -> None:
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "run"
    done = schedenv(*RUN, "--trials", 3, "--out", out)
    assert (done.code, done.err) == (
        2,
        f"error: --out {out} cannot be written (Not a directory); "
        "choose a directory that you own\n",
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_out_without_permission_cannot_be_written(tmp_path: Path, schedenv: Any) -> None:
    tmp_path.chmod(0o500)
    done = schedenv(*RUN, "--trials", 3, "--out", tmp_path / "run")
    tmp_path.chmod(0o700)
    assert (done.code, done.err) == (
        2,
        f"error: --out {tmp_path}/run cannot be written (Permission denied); "
        "choose a directory that you own\n",
    )


# -- stores that cannot be used ---------------------------------------------------------------


def test_a_corrupt_store_is_refused_and_kept(tmp_path: Path, schedenv: Any) -> None:
    out = fake_run(tmp_path / "run")
    garbage = b"not a database " * 500
    (out / "records.sqlite").write_bytes(garbage)
    done = schedenv(*RUN, "--trials", 3, "--out", out, "--resume")
    path = out / "records.sqlite"
    assert (done.code, done.err) == (
        1,
        f"error: {path} is damaged (file is not a database); move it away, or rescue what can "
        f"be read with: schedenv records rescue {path} --to NEW\n",
    )
    assert path.read_bytes() == garbage


@pytest.mark.slow
def test_records_of_other_hardware_are_refused_and_their_times_not_used(
    run: Path, schedenv: Any, rows: Any
) -> None:
    with sqlite3.connect(run / "records.sqlite") as connection:
        connection.execute("update records set fingerprint = 'elsewhere-9c'")
    connection.close()
    ours = json.loads((run / "best.json").read_text())["hardware"]
    done = schedenv(*RUN, "--trials", 8, "--out", run, "--resume")
    assert (done.code, done.err) == (
        1,
        f"error: {run}/records.sqlite holds records of the hardware elsewhere-9c; this machine is "
        f"{ours}. Times do not carry over: choose another --out, or pass --allow-foreign to keep "
        "both in one store\n",
    )
    done = schedenv(*RUN, "--trials", 2, "--out", run, "--resume", "--allow-foreign", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["trials"] == 2
    assert len(rows(run)) == 8


# -- the installation -------------------------------------------------------------------------


def test_the_pair_of_packages_that_crashes_is_refused_with_its_mend(tmp_path: Path) -> None:
    program = (
        "import importlib.metadata as m, sys\n"
        "real = m.version\n"
        "m.version = lambda name: {'apache-tvm-ffi': '0.1.15'}.get(name) or real(name)\n"
        f"sys.argv = ['schedenv', 'tune', {TASK!r}, '--out', {str(tmp_path / 'run')!r}]\n"
        "from schedenv.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: apache-tvm-ffi 0.1.15 crashes apache-tvm 0.27.")
    assert done.stderr.endswith("run: pip install 'apache-tvm-ffi>=0.1.14.post0,<0.1.15'\n")
    assert "Traceback" not in done.stderr
