"""What it gains that a network's kernels are chosen, and their weights packed, in the network.

    python runs/in_network.py DIR... [--table FILE.md]

DIR is the --out of a finished `schedenv tune` of a network. It is compiled with those schedules
that were fastest apart, weights as they lie in the file, and timed in turn beside what the run has
made and the vendor's library, outputs verified.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from schedenv import hardware as hw
from schedenv.measure.result import Result, Status
from schedenv.networks.build import LIBRARY, link
from schedenv.networks.compare import Contender, compare
from schedenv.networks.report import read_report
from schedenv.networks.tune import vendor_of
from schedenv.networks.variants import Variant
from schedenv.space import Point, Space
from schedenv.tasks.networks.prepare import prepare
from schedenv.tuning import run_dir

APART, CHOSEN, VENDOR = "apart", "chosen", "vendor"


def row(directory: Path, hardware: hw.Hardware) -> str:
    """A network's line of the table."""
    path = Path(run_dir.read_json(directory / run_dir.RUN)["task"])
    network = prepare(path, {})
    kernels = [row for row in read_report(directory)["kernels"] if row["point"] is not None]
    apart = {}
    for kernel in kernels:
        name, point = kernel["kernel"], Point.parse(kernel["point_apart"])
        schedule = Space(network.task(name).mod, hardware).apply(point)
        apart[name] = Variant(Result(point=point, status=Status.OK), schedule, None)
    with tempfile.TemporaryDirectory() as folder:
        plain = link(network, apart, hw.target(hardware), Path(folder) / LIBRARY)
        contenders = [
            Contender(VENDOR, vendor_of(path), path.resolve()),
            Contender(APART, "tvm", plain.library),
            Contender(CHOSEN, "tvm", directory / LIBRARY),
        ]
        inputs = network.description.inputs
        timings = compare(contenders, inputs, hardware, reference=VENDOR, turns=18).timings
    cells = [
        f"{len(kernels)}",
        f"{sum(kernel['point'] != kernel['point_apart'] for kernel in kernels)}",
        f"{sum(kernel['packed'] for kernel in kernels)}",
    ]
    for who in (APART, CHOSEN):
        low, ms, high = (end_s * 1e3 for end_s in timings[who].interval())
        cells.append(f"{ms:.3f} ({low:.3f} to {high:.3f})")
    low, ratio, high = timings[APART].ratio(timings[CHOSEN])
    cells.append(f"{ratio:.3f} ({low:.3f} to {high:.3f})")
    return f"| {network.name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = [
        "| network | kernels with schedules | with another one | packed | apart, ms | chosen, ms "
        "| times as fast |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [row(directory, hardware) for directory in arguments.directories]
    print("\n".join(lines))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
