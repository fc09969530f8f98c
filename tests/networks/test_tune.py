"""A network, from its file to a verified library: the real thing, small."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.cli import app
from schedenv.errors import NetworkOutputError
from schedenv.networks import compare as comparison
from schedenv.networks.compare import ROUNDS, Contender, compare
from schedenv.networks.tune import NetworkOutcome, NetworkRequest, tune_network
from schedenv.records import RecordStore
from schedenv.tasks.networks.network import Port

from ..small_networks import make_network

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")


def with_other_weights(network: Path, folder: Path) -> Path:
    """The network with one weight that is a thousandth larger."""
    model = onnx.load(str(network))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(1.001)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name)
    )
    other = folder / "other.onnx"
    onnx.save(model, str(other))
    return other


@pytest.fixture(scope="module", autouse=True)
def few_turns() -> Iterator[None]:
    """Comparisons that take a third of their time: starting processes is most of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "TURNS", 3)
        yield


@pytest.fixture(scope="module")
def run(small_network: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("run")
    out = folder / "out"
    peers = (
        Contender("peer", "onnxruntime", small_network),
        Contender("another", "onnxruntime", with_other_weights(small_network, folder)),
        Contender("missing", "onnxruntime", folder / "missing.onnx"),
    )
    request = NetworkRequest(small_network, 12.0, out, peers=peers)
    return out, tune_network(request, peaks(hw.detect()))


def test_the_outputs_are_those_of_onnxruntime(run: tuple[Path, NetworkOutcome]) -> None:
    report = run[1].report
    assert report is not None
    assert report["verified"]["error_of_tolerated"].keys() == {
        "schedenv", "tvm-untuned", "onnxruntime", "peer",
    }  # fmt: skip
    assert all(error <= 1 for error in report["verified"]["error_of_tolerated"].values())
    assert report["latency_us"].keys() == report["verified"]["error_of_tolerated"].keys()


def test_latencies_and_speedups_have_intervals(run: tuple[Path, NetworkOutcome]) -> None:
    report = run[1].report
    assert report is not None
    for ends in (*report["latency_us"].values(), *report["speedup"].values()):
        assert 0 < ends["low"] <= ends["estimate"] <= ends["high"]
    assert report["speedup"].keys() == report["latency_us"].keys() - {"schedenv"}


def test_every_turn_has_processes_of_its_own(
    run: tuple[Path, NetworkOutcome], small_network: Path
) -> None:
    comparison = compare(
        [
            Contender("onnxruntime", "onnxruntime", small_network),
            Contender("schedenv", "tvm", run[0] / "network.so"),
        ],
        (Port("x", (1, 3, 16, 16), "float32"),),
        hw.detect(),
        reference="onnxruntime",
        turns=3,
    )
    for times in comparison.timings.values():
        assert [len(samples_s) for samples_s in times.samples_s] == [ROUNDS] * 3


def test_what_goes_into_the_network_was_timed_against_other_candidates(
    run: tuple[Path, NetworkOutcome],
) -> None:
    report, kernels = run[1].report, run[1].search.kernels
    assert report is not None
    assert any(len(kernel.finalists) > 1 for kernel in kernels.values())
    for row in report["kernels"]:
        finalists = kernels[row["kernel"]].finalists
        if finalists and row["point"] is not None:
            timed_us = {str(one.point): (one.estimate_s or 0.0) * 1e6 for one in finalists}
            assert row["tuned_us"] == timed_us[row["point"]] < row["untuned_us"]


def test_a_peer_that_is_wrong_or_cannot_run_is_left_out(run: tuple[Path, NetworkOutcome]) -> None:
    report = run[1].report
    assert report is not None
    assert report["left_out"].keys() == {"another", "missing"}
    assert "the outputs of another deviate" in report["left_out"]["another"]
    assert "missing cannot run" in report["left_out"]["missing"]


def test_the_report_says_where_the_time_goes(run: tuple[Path, NetworkOutcome]) -> None:
    out, outcome = run
    report = json.loads((out / "report.json").read_text())
    assert report == outcome.report
    totals = [row["total_us"] for row in report["kernels"] if row["total_us"] is not None]
    assert totals == sorted(totals, reverse=True)
    for row in report["kernels"]:
        if row["tuned_us"] is not None:
            assert row["tuned_us"] <= row["untuned_us"]
    # The heaviest kernel has had the first slice, however slow the machine was.
    assert max(row["trials"] for row in report["kernels"]) >= 8


def test_a_kernel_of_few_operations_is_tuned_if_it_takes_long_untuned(
    save: Callable[[Any], Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w0": rng.normal(size=(64, 64, 3, 3)).astype(np.float32) * 0.1,
        "w1": rng.normal(size=(32, 64, 1, 1)).astype(np.float32) * 0.1,
    }
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
        onnx.helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[16, 16], strides=[16, 16]),
        onnx.helper.make_node("Conv", ["b", "w1"], ["y"]),
    ]
    path = save(make_network(nodes, weights, [1, 64, 32, 32]))
    out = tmp_path / "out"
    outcome = tune_network(NetworkRequest(path, 40.0, out), peaks(hw.detect()))
    assert outcome.report is not None
    rows = outcome.report["kernels"]
    roofline_us = {row["kernel"]: row["calls"] * row["roofline_us"] for row in rows}
    small = min(
        (row for row in rows if "conv2d" in row["kernel"]), key=lambda row: row["roofline_us"]
    )
    assert roofline_us[small["kernel"]] < 0.005 * sum(roofline_us.values())
    assert small["trials"] > 0
    assert small["tuned_us"] < small["untuned_us"]


def test_the_example_runs_the_library_with_tvm_alone(run: tuple[Path, NetworkOutcome]) -> None:
    text = (run[0] / "example.py").read_text()
    assert "schedenv" not in re.sub(r'"[^"]*"', "", text)
    done = subprocess.run(
        [sys.executable, str(run[0] / "example.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(1, 32, 1, 1)" in done.stdout or "[[" in done.stdout


def test_the_database_holds_every_winner_for_plain_tvm(run: tuple[Path, NetworkOutcome]) -> None:
    lines = (run[0] / "database" / "database_tuning_record.json").read_text().splitlines()
    report = run[1].report
    assert report is not None
    assert len(lines) == sum(row["point"] is not None for row in report["kernels"]) > 0


def test_wrong_outputs_are_caught(
    run: tuple[Path, NetworkOutcome], small_network: Path, tmp_path: Path
) -> None:
    other = with_other_weights(small_network, tmp_path)
    with pytest.raises(NetworkOutputError, match="the outputs of schedenv deviate"):
        compare(
            [
                Contender("onnxruntime", "onnxruntime", other),
                Contender("schedenv", "tvm", run[0] / "network.so"),
            ],
            (Port("x", (1, 3, 16, 16), "float32"),),
            hw.detect(),
            reference="onnxruntime",
        )


def wait_for(process: subprocess.Popen[Any], happened: Callable[[], bool]) -> None:
    """Wait until something has happened that a process does."""
    end_s = time.monotonic() + 120
    while time.monotonic() < end_s and process.poll() is None and not happened():
        time.sleep(0.05)
    assert process.poll() is None
    assert happened()


def kill_when(command: list[str], happened: Callable[[], bool]) -> None:
    """Start a command and kill it as soon as something has happened."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(process, happened)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def tune_command(network: Path, out: Path, seconds: float) -> list[str]:
    """The words after `schedenv`."""
    return ["tune", str(network), "--out", str(out), "--seconds", str(seconds)]


SCHEDENV = str(Path(sys.executable).with_name("schedenv"))


def test_a_killed_run_goes_on_and_measures_nothing_twice(
    small_network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    log = out / "slices.jsonl"
    kill_when(
        [SCHEDENV, *tune_command(small_network, out, 100)],
        lambda: log.exists() and log.read_bytes().count(b"\n") >= 2,
    )
    before = log.read_bytes()
    spent_s = sum(json.loads(line)["seconds"] for line in before.splitlines())
    result = CliRunner().invoke(
        app, [*tune_command(small_network, out, spent_s + 5), "--resume", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert log.read_bytes().startswith(before)
    with RecordStore(out / "records.sqlite", hw.detect().fingerprint) as store:
        programs = [(record.task_hash, record.canonical) for record in store.records()]
    assert len(programs) == len(set(programs))


def test_a_run_killed_while_its_network_is_compiled_or_timed_goes_on_there(
    small_network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = tune_command(small_network, out, 8)
    kill_when([SCHEDENV, *words], (out / "variants" / "1.so").exists)
    searched = (out / "slices.jsonl").read_bytes()
    kill_when([SCHEDENV, *words, "--resume"], (out / "untuned.so").exists)
    result = CliRunner().invoke(app, [*words, "--resume", "--json"])
    assert result.exit_code == 0, result.output
    assert (out / "slices.jsonl").read_bytes() == searched
    assert not (out / "variants").exists()
    assert json.loads(result.output)["latency_us"].keys() >= {"schedenv", "tvm-untuned"}


def test_ctrl_c_while_the_network_is_timed_says_how_to_go_on(
    small_network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [SCHEDENV, *tune_command(small_network, out, 8)], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(process, (out / "untuned.so").exists)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-2] == "interrupted; every result is kept. Continue with:"
    assert said.splitlines()[-1].endswith(f"--out {out} --resume")


def test_options_of_operators_are_refused(small_network: Path) -> None:
    result = CliRunner().invoke(app, ["tune", str(small_network), "--trials", "5"])
    assert str(result.exception) == (
        "--trials cannot be used with a network; it is tuned for --seconds on this machine, and "
        "its records are in --out"
    )
