"""Tune a network, then time it beside untuned TVM, ONNX Runtime and torch in one interleaved run.

    python runs/networks.py [--network squeezenet] [--seconds 180] [--seed 0] [--out out/squeezenet]
        [--table runs/networks.md]

The networks are the onnx package's and transformers' (extra `networks`), with random weights. Each
contender runs in its own process with all cores. A run that was killed goes on with the same
command; a finished one only writes its section of the table again. ONNX Runtime's own profile says
what it spends on each convolution. The last column of the second table means something on an
undisturbed machine alone: schedenv's times are corrected for the machine's drift, the profile's
are not.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from network_files import NAMES, network_files
from sections import write_section

from schedenv import hardware as hw
from schedenv import tvm_relax
from schedenv.calibration import peaks
from schedenv.networks.compare import Contender, random_inputs
from schedenv.networks.slices import Search, Slice
from schedenv.networks.tune import (
    DEFAULT_AGENT,
    REPORT,
    TUNED,
    NetworkRequest,
    NetworkWatcher,
    read_report,
    tune_network,
    vendor_of,
)
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import prepare

PROFILED_RUNS = 60
FUSED = {"BatchNormalization", "Relu", "Add", "Sum"}


class Printer(NetworkWatcher):
    """One line a stage, one a slice."""

    def stage(self, name: str) -> None:
        """Print it."""
        print(name, flush=True)

    def slice(self, part: Slice, search: Search) -> None:
        """Print what it has brought."""
        print(f"{search.elapsed_s:.0f} s {part.task} {search.network_s * 1e3:.3f} ms", flush=True)


def vendor_convolutions_us(network: Path, seed: int, folder: Path) -> list[float | None]:
    """What ONNX Runtime spends on each convolution, in the graph's order; median microseconds.

    It names a fused node by the last tensor of what it fused. None for one not found by any name.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = hw.detect().cores
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(
        str(network), options, providers=["CPUExecutionProvider"]
    )
    ports = prepare(network).description.inputs
    arrays = random_inputs(ports, seed)
    for _ in range(PROFILED_RUNS):
        session.run(None, dict(zip([port.name for port in ports], arrays, strict=True)))
    file = Path(session.end_profiling())
    spent: dict[str, list[float]] = defaultdict(list)
    for event in json.loads(file.read_text()):
        if event.get("cat") == "Node" and event["args"].get("op_name", "").endswith("Conv"):
            name = event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
            spent[name].append(float(event["dur"]))
    file.unlink()
    graph = onnx.load(str(network)).graph
    users = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    found: list[float | None] = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        names, end = [node.name, node.output[0]], node
        while len(after := users[end.output[0]]) == 1 and after[0].op_type in FUSED:
            end = after[0]
            names += [end.name, end.output[0]]
        times = next((spent[name] for name in names if name in spent), None)
        found.append(None if times is None else float(np.median(times[len(times) // 2 :])))
    return found


def same_convolutions(file: Path, network: Network, calls: list[str]) -> bool:
    """Whether the kernels called are the file's convolutions, in its order, by their weights."""
    graph = onnx.load(str(file)).graph
    dims = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    theirs = [dims[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    ours = [network.task(name).arguments[1].shape for name in calls]
    return len(theirs) == len(ours) and all(
        shape[:3] == (height, width, channels)
        for shape, (_, channels, height, width) in zip(ours, theirs, strict=True)
    )


PREFACE = """\
# Networks beside ONNX Runtime and torch

Each section is written by `python runs/networks.py --network NAME --seconds S --table
runs/networks.md`; 2 threads for everybody. Weights are random. A network's contenders are timed in
one interleaved run, each in its own process, outputs verified on two sets of inputs against who
runs the file itself: ONNX Runtime an ONNX file, torch an exported program. Untuned is what TVM
makes of the file on its own: its layouts, its libm, no schedules. schedenv's network has the
schedules found, channels last, and polynomials for exp, tanh and erf. One seed: how far another
one gets is not known.

Kernels' times are what the search measured on warm caches, corrected to an undisturbed machine; the
networks' times are not corrected, so their sums do not add up to them. ONNX Runtime's column is its
own profile, uncorrected as well; it is there where its convolutions can be told apart by name.
"""


def vendor_by_kernel(file: Path, network: Network, seed: int, folder: Path) -> dict[str, float]:
    """ONNX Runtime's microseconds for each convolution kernel; empty where they differ."""
    kernel_of = {name: entry.name for entry in network.entries.values() for name in entry.names}
    sequence = tvm_relax.call_sequence(network.graph())
    calls = [kernel_of[name] for name in sequence if "conv2d" in name]
    if not same_convolutions(file, network, calls):
        return {}
    spent = vendor_convolutions_us(file, seed, folder)
    return {name: us for name, us in zip(calls, spent, strict=True) if us is not None}


def section(name: str, report: dict[str, Any], vendor_us: dict[str, float]) -> str:
    """The Markdown of one network."""
    ours = report["latency_us"][TUNED]["estimate"]
    machine = f"{hw.detect().cpu_model}, {datetime.now(UTC).date()}"
    lines = [
        f"## {name}, {report['seconds']:.0f} s, {report['trials']:,} trials",
        "",
        f"Agent `{report['agent']}`, scheduler `{report['scheduler']}`; {machine}.",
        "",
        "| who | ms | 95 % | schedenv is | error of tolerated |",
        "|---|---:|---|---:|---:|",
    ]
    for who, latency in report["latency_us"].items():
        ms, low, high = (latency[key] / 1e3 for key in ("estimate", "low", "high"))
        error = report["verified"]["error_of_tolerated"][who]
        lines.append(
            f"| {who} | {ms:.3f} | {low:.3f} to {high:.3f} "
            f"| {latency['estimate'] / ours:.2f}x as fast | {error:.3f} |"
        )
    for who, reason in report["left_out"].items():
        lines += ["", f"{who} was left out: {reason}"]
    lines += [
        "",
        "| kernel | calls | untuned us | tuned us | ONNX Runtime us | roofline us "
        "| lost, all calls us |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["kernels"]:
        theirs, tuned = vendor_us.get(row["kernel"]), row["tuned_us"]
        lost = None if theirs is None or tuned is None else (tuned - theirs) * row["calls"]
        values = (row["untuned_us"], tuned, theirs, row["roofline_us"], lost)
        cells = " | ".join("" if value is None else f"{value:.1f}" for value in values)
        lines.append(f"| {row['kernel']} | {row['calls']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NAMES, default="squeezenet")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--agent", default=DEFAULT_AGENT)
    parser.add_argument("--scheduler", default="gradient")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--table", type=Path, default=None)
    arguments = parser.parse_args()
    out = arguments.out or Path("out") / f"{arguments.network}-{arguments.agent}"
    files = network_files(arguments.network, out.parent)
    peers = [Contender("onnxruntime", "onnxruntime", files.onnx.resolve()),
             Contender("torch", "torch", files.torch.resolve())]  # fmt: skip
    if not (out / REPORT).exists():
        request = NetworkRequest(
            files.tuned, arguments.seconds, out, agent=arguments.agent,
            scheduler=arguments.scheduler, seed=arguments.seed,
            resume=(out / "run.json").exists(),
            peers=tuple(peer for peer in peers if peer.kind != vendor_of(files.tuned)),
        )  # fmt: skip
        tune_network(request, peaks(hw.detect()), Printer())
    vendor_us: dict[str, float] = {}
    if files.tuned == files.onnx:
        vendor_us = vendor_by_kernel(files.onnx, prepare(files.tuned), arguments.seed, out)
    text = section(arguments.network, read_report(out), vendor_us)
    print(f"\n{text}")
    if arguments.table is not None:
        write_section(arguments.table, PREFACE, arguments.network, text)


if __name__ == "__main__":
    main()
