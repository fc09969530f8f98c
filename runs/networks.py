"""Tune a network, then time it beside untuned TVM, ONNX Runtime and torch in one interleaved run.

    python runs/networks.py [--network squeezenet] [--seconds 180] [--seed 0] [--out out/squeezenet]
        [--table runs/networks.md]

The networks are the onnx package's and transformers' (extra `networks`), with random weights. Each
contender runs in its own process with all cores. A run that was killed goes on with the same
command; a finished one only writes its section of the table again. ONNX Runtime's own profile says
what it spends on each convolution and matrix product.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from network_files import NAMES, network_files
from sections import write_section

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.networks.compare import Contender
from schedenv.networks.report import REPORT, TUNED, read_report
from schedenv.networks.slices import Search, Slice
from schedenv.networks.tune import (
    DEFAULT_AGENT,
    NetworkRequest,
    NetworkWatcher,
    tune_network,
    vendor_of,
)
from schedenv.networks.vendor import Profile, by_kernel, by_operator, profile
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import prepare

LEAST_US = 1.0


class Printer(NetworkWatcher):
    """One line a stage, one a slice."""

    def stage(self, name: str) -> None:
        """Print it."""
        print(name, flush=True)

    def slice(self, part: Slice, search: Search) -> None:
        """Print what it has brought."""
        print(f"{search.elapsed_s:.0f} s {part.task} {search.network_s * 1e3:.3f} ms", flush=True)


PREFACE = """\
# Networks beside ONNX Runtime and torch

Each section is written by `python runs/networks.py --network NAME --seconds S --table
runs/networks.md`; 2 threads for everybody. Weights are random. A network's contenders are timed in
one run, in nine turns, each time in processes of their own; intervals are over turns (of untuned
networks, which have one, over samples). Outputs are verified on two sets of inputs against who runs
the file itself: ONNX Runtime an ONNX file, torch an exported program. Untuned is what TVM makes of
the file on its own: its layouts, its libm, no schedules. schedenv's network has the schedules
found, channels last, and polynomials for exp, tanh and erf. One seed: how far another one gets is
not known.

Tuned kernels' times are those of finalists, timed in turn in a process of their own. A network's
weights come from where the network finds them: from memory, if they fill more than the caches.
Activations are warm, and nothing comes between two calls. "In network" is what a call takes in the
compiled network, with an instrument that adds one or two microseconds; "packed" are kernels whose
weights lie as their schedules read them. Which of up to four variants of a kernel, by schedule and
packing, stands in the network was decided there, before these times were taken. What is lost is
lost in the network, to ONNX Runtime. ONNX Runtime's column is its own profile, convolutions and
matrix products told apart by shape; those of one shape have the mean. What is fused counts where it
is fused. Profiling costs it time: in networks of a few milliseconds its operators add up to more
than the network takes.
"""


def section(
    name: str, report: dict[str, Any], network: Network, theirs: Profile, file: Path
) -> str:
    """The Markdown of one network.

    Args:
        name: Of the network.
        report: `report.json` of its run.
        network: As it was tuned.
        theirs: ONNX Runtime's profile of it.
        file: What ONNX Runtime ran.
    """
    vendor_us = by_kernel(file, network, theirs)
    machine = f"{hw.detect().cpu_model}, {datetime.now(UTC).date()}"
    lines = [
        f"## {name}, {report['seconds']:.0f} s, {report['trials']:,} trials",
        "",
        f"Agent `{report['agent']}`, scheduler `{report['scheduler']}`; {machine}.",
        "",
        "| who | ms | 95 % | schedenv is | 95 % | error of tolerated |",
        "|---|---:|---|---:|---|---:|",
    ]
    for who, latency in report["latency_us"].items():
        ms, low, high = (latency[key] / 1e3 for key in ("estimate", "low", "high"))
        ratio = "| | |"
        if who != TUNED:
            ends = report["speedup"][who]
            ratio = "| {estimate:.2f}x as fast | {low:.2f} to {high:.2f} |".format(**ends)
        error = report["verified"]["error_of_tolerated"][who]
        lines.append(f"| {who} | {ms:.3f} | {low:.3f} to {high:.3f} {ratio} {error:.3f} |")
    for who, reason in report.get("left_out", {}).items():
        lines += ["", f"{who} was left out: {reason}"]
    lines += [
        "",
        "| kernel | calls | untuned us | tuned us | in network us | ONNX Runtime us | roofline us "
        "| lost, all calls us |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in report["kernels"]:
        vendors, ours = vendor_us.get(row["kernel"]), row["in_network_us"]
        lost = None if vendors is None or ours is None else (ours - vendors) * row["calls"]
        values = (row["untuned_us"], row["tuned_us"], ours, vendors, row["roofline_us"], lost)
        cells = " | ".join("" if value is None else f"{value:.1f}" for value in values)
        packed = ", packed" if row["packed"] else ""
        lines.append(f"| {row['kernel']}{packed} | {row['calls']} | {cells} |")
    operators = [f"{kind} {us:.0f}" for kind, us in by_operator(theirs).items() if us >= LEAST_US]
    lines += ["", f"ONNX Runtime's profile by operator, us a run: {', '.join(operators)}."]
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
    network = prepare(files.tuned)
    theirs = profile(files.onnx.resolve(), network.description.inputs, hw.detect(), arguments.seed)
    text = section(arguments.network, read_report(out), network, theirs, files.onnx)
    print(f"\n{text}")
    if arguments.table is not None:
        write_section(arguments.table, PREFACE, arguments.network, text)


if __name__ == "__main__":
    main()
