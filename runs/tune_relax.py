"""TVM's own `tune_relax` against schedenv on a network, at equal seconds.

    python runs/tune_relax.py --network squeezenet --seconds 600 [--seed 0]
        [--table runs/tune_relax.md] [--plot runs/tune_relax.png]

Both search the same prepared graph (channels last, constants folded, polynomials for exp, tanh and
erf) for the same target on the same threads. tune_relax is upstream's, with what would be unfair
taken off it: all cores for kernels and builds, no tensor intrinsics to parse, the llvm rules, and
rounds of 8 candidates, as schedenv's slices have, because with its 64 no network gets through the
first round of all tasks in ten minutes. It runs in a process of its own, and its clock starts when
it is called; what it has not timed when the seconds are over is left out. Then both networks are
compiled, verified and timed interleaved with who runs the file itself.

A run that was killed goes on with the same command; tune_relax, which cannot go on, begins again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from network_files import NAMES, network_files
from networks import Printer
from sections import write_section

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_database, tvm_relax, tvm_tuning
from schedenv.calibration import peaks
from schedenv.measure.process import kill_tree
from schedenv.networks.build import LIBRARY
from schedenv.networks.compare import Contender, compare
from schedenv.networks.report import REPORT, TUNED
from schedenv.networks.slices import SLICE_TRIALS, read_log
from schedenv.networks.tune import (
    SLICES,
    UNTUNED_LIBRARY,
    NetworkRequest,
    tune_network,
    vendor_of,
)
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import prepare

THEIRS, THEIRS_PLAIN = "tune_relax", "tune_relax, compiled with TVM's own settings"
TRIED = "tried.jsonl"
DATABASE = "database"
DONE = "done.json"
_GRACE_S = 900.0
"""For import, the last round's builds and runs; they do not count."""

PREFACE = """\
# TVM's tune_relax and schedenv at equal seconds

Each section is written by `python runs/tune_relax.py --network NAME --seconds S --table
runs/tune_relax.md --plot runs/tune_relax_NAME.png`; its head says what is equal. Of a search, the
sum of kernels is what it believes itself: the best times that it has seen (the unscheduled
program's, as schedenv timed it, for a kernel without any), which are a lottery's winners. The
networks' times are measured in nine turns, each with new processes, outputs verified; intervals are
over turns. Schedules of tune_relax are compiled as schedenv's are, but for packed weights and the
choice of variants in the network, which it has nothing of; and as TVM does on its own, with its
elimination of common subexpressions. One seed.
"""

Curve = list[tuple[float, int, float]]
"""Seconds, trials, the sum of the kernels in seconds."""


def search(folder: Path, seconds: float, seed: int, batch: int) -> None:
    """Run tune_relax until the seconds are over; the process of `run_tune_relax`."""
    import time

    hardware = hw.detect()
    database = folder / DATABASE
    started_s = time.monotonic()

    def start() -> None:
        nonlocal started_s
        started_s = time.monotonic()

    def elapsed_s() -> float:
        return time.monotonic() - started_s

    def tried(_: str, times_s: tuple[float, ...]) -> None:
        with (folder / TRIED).open("a") as file:
            file.write(f"{json.dumps([elapsed_s(), times_s])}\n")

    listener = tvm_tuning.Listener(
        started=start,
        building=lambda _: None,
        running=lambda _: None,
        tried=tried,
        committed=lambda: None,
        expired=lambda share: elapsed_s() >= share * seconds,
    )
    tuner = tvm_tuning.Tuner(
        batch=batch, warm_up=batch, builders=hardware.cores, rules="llvm", beside_pool=True
    )
    graph = tvm_adapter.module_from_json((folder / "graph.json").read_text())
    tvm_tuning.tune_graph(graph, hw.target(hardware), tuner, str(database), seed, listener)
    (folder / DONE).write_text(json.dumps({"seconds": elapsed_s()}))
    os._exit(0)


def run_tune_relax(network: Network, folder: Path, seconds: float, seed: int, batch: int) -> None:
    """Run it in a process of its own, unless it has finished already."""
    if (folder / DONE).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / DATABASE).mkdir(parents=True)
    (folder / "scratch").mkdir()
    (folder / "graph.json").write_text(tvm_adapter.module_to_json(network.graph()))
    # TVM leaves what it has built in the temporary directory.
    environment = {
        **os.environ, **hw.kernel_environment(hw.detect()),
        "TMPDIR": str((folder / "scratch").resolve()),
    }  # fmt: skip
    command = [sys.executable, __file__, "--search", str(folder), "--seconds", str(seconds)]
    command += ["--seed", str(seed), "--batch", str(batch)]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            process.wait(seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            print(f"tune_relax did not end in time; what it has committed counts: {folder}")
        finally:
            kill_tree(process.pid)
            process.wait()
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    if not (folder / TRIED).exists():
        raise RuntimeError(f"tune_relax has timed nothing; see {folder / 'log.txt'}")
    (folder / DONE).write_text(json.dumps({"seconds": seconds}))


def compile_theirs(network: Network, folder: Path) -> dict[str, Path]:
    """The network with the database's best schedules, compiled as ours are and as TVM does."""
    libraries = {THEIRS: folder / LIBRARY, THEIRS_PLAIN: folder / f"plain-{LIBRARY}"}
    if not all(path.exists() for path in libraries.values()):
        target = hw.target(hw.detect())
        scheduled = tvm_database.apply_to_network(network.graph(), str(folder / DATABASE), target)
        for name, path in libraries.items():
            executable = tvm_relax.compile_network(
                scheduled, target, common_subexpressions=name == THEIRS_PLAIN
            )
            tvm_relax.export_network(executable, path)
    return libraries


def our_curve(network: Network, out: Path) -> tuple[Curve, dict[str, float]]:
    """The sum of the kernels after each slice, and what each takes untuned."""
    slices = read_log(out / SLICES)
    best_s = {part.task: part.untuned_s for part in slices}
    untuned_s = dict(best_s)
    curve: Curve = [(0.0, 0, _sum(network, best_s))]
    for part in slices:
        best_s[part.task] = min(best_s[part.task], part.best_s or math.inf)
        seconds, trials, _ = curve[-1]
        curve.append((seconds + part.seconds, trials + part.trials, _sum(network, best_s)))
    return curve, untuned_s


def their_curve(network: Network, folder: Path, untuned_s: dict[str, float]) -> Curve:
    """The sum of the kernels after each candidate.

    Upstream commits a task's first round late, and nothing but the database says whose a time is;
    so times are looked up there by their value.
    """
    hashes = {tvm_adapter.structural_hash(network.task(name).mod): name for name in network.entries}
    database = folder / DATABASE
    workloads = [
        hashes.get(tvm_adapter.structural_hash(tvm_database.workload_from_json(json.loads(line))))
        for line in (database / "database_workload.json").read_text().splitlines()
    ]
    kernel_of = {
        _rounded(times): workloads[workload]
        for workload, (_, times, *_) in map(
            json.loads, (database / "database_tuning_record.json").read_text().splitlines()
        )
    }
    best_s = dict(untuned_s)
    curve: Curve = [(0.0, 0, _sum(network, best_s))]
    for line in (folder / TRIED).read_text().splitlines():
        elapsed_s, times = json.loads(line)
        name = kernel_of.get(_rounded(times))
        if times and name in best_s:
            best_s[name] = min(best_s[name], sum(times) / len(times))
        curve.append((elapsed_s, len(curve), _sum(network, best_s)))
    return curve


def _rounded(times_s: Sequence[float]) -> tuple[str, ...]:
    return tuple(f"{time_s:.9e}" for time_s in times_s)


def _sum(network: Network, best_s: dict[str, float]) -> float:
    return sum(network.entries[name].calls * seconds for name, seconds in best_s.items())


def plot(curves: dict[str, Curve], finals_ms: dict[str, float], title: str, path: Path) -> None:
    """Milliseconds by seconds of search, and the measured networks as dashed lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for number, (name, curve) in enumerate(curves.items()):
        seconds, _, sums_s = zip(*curve, strict=True)
        axes.step(seconds, [value * 1e3 for value in sums_s], where="post", color=f"C{number}",
                  label=f"{name}, sum of kernels")  # fmt: skip
    for number, (name, ms) in enumerate(finals_ms.items()):
        axes.axhline(ms, linestyle="--", color=f"C{number}", label=f"{name}, measured")
    axes.set(xlabel="seconds of search", ylabel="milliseconds", yscale="log", title=title)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def section(name: str, seconds: float, result: dict[str, Any]) -> str:
    """The Markdown of one network."""
    lines = [
        f"## {name}, {seconds:.0f} s",
        "",
        f"{hw.detect().cpu_model}, {hw.detect().cores} threads for everybody, "
        f"{datetime.now(UTC).date()}.",
        "",
        "| who | trials | sum of kernels, ms | network, ms | 95 % | schedenv is "
        "| error of tolerated |",
        "|---|---:|---:|---:|---|---|---:|",
    ]
    for who, entry in result["networks"].items():
        curve = result["curves"].get(who)
        trials, total = (
            ("", "") if curve is None else (f"{curve[-1][1]:,}", f"{curve[-1][2] * 1e3:.2f}")
        )
        low, ms, high = (end_s * 1e3 for end_s in entry["latency_s"])
        ratio_low, ratio, ratio_high = entry["ratio"]
        lines.append(
            f"| {who} | {trials} | {total} | {ms:.3f} | {low:.3f} to {high:.3f} "
            f"| {ratio:.2f}x as fast ({ratio_low:.2f} to {ratio_high:.2f}) | {entry['error']:.3f} |"
        )
    lines += ["", "Sum of kernels in milliseconds after seconds of search:", ""]
    marks = [seconds * share for share in (0.1, 0.2, 0.3, 0.5, 0.75, 1.0)]
    lines.append("| search | " + " | ".join(f"{mark:.0f} s" for mark in marks) + " |")
    lines.append("|---|" + "---:|" * len(marks))
    for who, curve in result["curves"].items():
        values = [[total for when, _, total in curve if when <= mark][-1] for mark in marks]
        lines.append(f"| {who} | " + " | ".join(f"{value * 1e3:.2f}" for value in values) + " |")
    return "\n".join(lines)


def race(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both searches, then the interleaved comparison."""
    files = network_files(arguments.network, arguments.out)
    network, hardware = prepare(files.tuned), hw.detect()
    run = f"{arguments.network}-{arguments.seconds:.0f}s-{arguments.seed}"
    ours, theirs = arguments.out / f"{run}-schedenv", arguments.out / f"{run}-tune_relax"
    if not (ours / REPORT).exists():
        request = NetworkRequest(
            files.tuned, arguments.seconds, ours, seed=arguments.seed,
            resume=(ours / "run.json").exists(),
        )  # fmt: skip
        tune_network(request, peaks(hardware), Printer())
    run_tune_relax(network, theirs, arguments.seconds, arguments.seed, arguments.batch)
    libraries = compile_theirs(network, theirs)
    judge = vendor_of(files.tuned)
    contenders = [
        Contender(TUNED, "tvm", ours / LIBRARY),
        *(Contender(name, "tvm", path) for name, path in libraries.items()),
        Contender("onnxruntime", "onnxruntime", files.onnx.resolve()),
    ]
    if judge != "onnxruntime":
        contenders.append(Contender(judge, judge, files.tuned.resolve()))
    contenders.append(Contender("tvm-untuned", "tvm", ours / UNTUNED_LIBRARY))
    comparison = compare(
        contenders, network.description.inputs, hardware, reference=judge, seed=arguments.seed
    )
    curve, untuned_s = our_curve(network, ours)
    return {
        "curves": {
            TUNED: curve,
            THEIRS: their_curve(network, theirs, untuned_s),
        },
        "networks": {
            name: {
                "latency_s": times.interval(),
                "ratio": times.ratio(comparison.timings[TUNED]),
                "error": comparison.errors[name],
            }
            for name, times in comparison.timings.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NAMES, default="squeezenet")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=SLICE_TRIALS)
    parser.add_argument("--out", type=Path, default=Path("out/tune_relax"))
    parser.add_argument("--table", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    parser.add_argument("--search", type=Path, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search is not None:
        search(arguments.search, arguments.seconds, arguments.seed, arguments.batch)
    result = race(arguments)
    text = section(arguments.network, arguments.seconds, result)
    print(f"\n{text}")
    if arguments.table is not None:
        write_section(arguments.table, PREFACE, arguments.network, text)
    if arguments.plot is not None:
        finals_ms = {
            name: result["networks"][name]["latency_s"][1] * 1e3 for name in result["curves"]
        }
        title = f"{arguments.network}, {hw.detect().cores} threads"
        plot(result["curves"], finals_ms, title, arguments.plot)


if __name__ == "__main__":
    main()
