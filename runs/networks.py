"""Tune a network, then time it beside untuned TVM, ONNX Runtime and torch in one interleaved run.

    python runs/networks.py [--network squeezenet] [--seconds 180] [--seed 0] [--out out/squeezenet]

The network is one of the onnx package's, with random weights. Each contender runs in its own
process with all cores; all outputs are verified against ONNX Runtime's. ONNX Runtime's own profile
says what it spends on each convolution. The last column of the second table means something on an
undisturbed machine alone: schedenv's times are corrected for the machine's drift, the profile's
are not.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from light_networks import as_torch, with_random_weights

from schedenv import hardware as hw
from schedenv import tvm_relax
from schedenv.calibration import peaks
from schedenv.networks.build import LIBRARY
from schedenv.networks.compare import Contender, compare, random_inputs
from schedenv.networks.slices import Search, Slice
from schedenv.networks.tune import (
    DEFAULT_AGENT,
    NetworkRequest,
    NetworkWatcher,
    read_report,
    tune_network,
)
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import prepare

PROFILED_RUNS = 60
FUSED = {"BatchNormalization", "Relu", "Add", "Sum"}


class _Printer(NetworkWatcher):
    def stage(self, name: str) -> None:
        print(name, flush=True)

    def slice(self, part: Slice, search: Search) -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="squeezenet")
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--agent", default=DEFAULT_AGENT)
    parser.add_argument("--scheduler", default="gradient")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    out = arguments.out or Path("out") / f"{arguments.network}-{arguments.agent}"
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{arguments.network}.onnx"
    if not file.exists():
        with_random_weights(arguments.network, file)
    exported = out.parent / f"{arguments.network}.pt2"
    if not exported.exists():
        as_torch(file, exported)
    hardware = hw.detect()
    machine = peaks(hardware)
    if not (out / "report.json").exists():
        request = NetworkRequest(
            file, arguments.seconds, out, agent=arguments.agent, scheduler=arguments.scheduler,
            seed=arguments.seed, resume=(out / "run.json").exists(),
        )  # fmt: skip
        tune_network(request, machine, _Printer())
    report, network = read_report(out), prepare(file)
    contenders = [
        Contender("onnxruntime", "onnxruntime", file),
        Contender("schedenv", "tvm", out / LIBRARY),
        Contender("untuned", "tvm", out / "untuned.so"),
        Contender("torch", "torch", exported),
    ]
    errors, timings = compare(
        contenders, network.description.inputs, hardware, reference="onnxruntime",
        seed=arguments.seed, rounds=arguments.rounds,
    )  # fmt: skip
    vendor = vendor_convolutions_us(file, arguments.seed, out)
    kernel_of = {name: entry.name for entry in network.entries.values() for name in entry.names}
    calls = [
        kernel_of[name] for name in tvm_relax.call_sequence(network.graph()) if "conv2d" in name
    ]
    comparable = same_convolutions(file, network, calls)
    vendor_us = dict(zip(calls, vendor, strict=True)) if comparable else {}

    ours_ms = timings["schedenv"].latency_s * 1e3
    print(f"\n{arguments.network}, {report['trials']} trials in {report['seconds']:.0f} s\n")
    print("| who | ms | 95 % | schedenv is | error of tolerated |\n|---|---:|---|---:|---:|")
    for name, timing in timings.items():
        low, high = timing.low_s * 1e3, timing.high_s * 1e3
        ms = timing.latency_s * 1e3
        print(
            f"| {name} | {ms:.3f} | {low:.3f} to {high:.3f} | {ms / ours_ms:.2f}x as fast "
            f"| {errors[name]:.2f} |"
        )
    print(
        "\n| kernel | calls | untuned us | tuned us | ONNX Runtime us | roofline us "
        "| lost, all calls us |"
        "\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for row in report["kernels"]:
        theirs = vendor_us.get(row["kernel"])
        lost = (
            None
            if theirs is None or row["tuned_us"] is None
            else ((row["tuned_us"] - theirs) * row["calls"])
        )
        cells = [
            "" if value is None else f"{value:.1f}"
            for value in (row["untuned_us"], row["tuned_us"], theirs, row["roofline_us"], lost)
        ]
        print(f"| {row['kernel']} | {row['calls']} | {' | '.join(cells)} |")
    content = {
        **report,
        "interleaved_ms": {
            name: [timing.latency_s * 1e3, timing.low_s * 1e3, timing.high_s * 1e3]
            for name, timing in timings.items()
        },
        "onnxruntime_convolutions_us": vendor_us,
    }
    (out / "networks.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
