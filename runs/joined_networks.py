"""What it gains that kernels store straight into concatenations.

    python runs/joined_networks.py DIR... [--table FILE.md]

DIR is the --out of a finished `schedenv tune` of a network. It is compiled twice with the best
schedules of its records, with concatenations joined and not, and both are timed in turn beside the
vendor's library, outputs verified.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from schedenv import hardware as hw
from schedenv import tvm_joins, tvm_relax
from schedenv.networks.compare import Contender, compare
from schedenv.networks.slices import fastest
from schedenv.networks.tune import vendor_of
from schedenv.records import RecordStore
from schedenv.space import Space
from schedenv.tasks.networks.prepare import prepare
from schedenv.tuning import run_dir


def row(directory: Path, hardware: hw.Hardware) -> str:
    """A network's line of the table."""
    path = Path(run_dir.read_json(directory / run_dir.RUN)["task"])
    network = prepare(path, {})
    scheduled = {}
    with RecordStore(directory / run_dir.RECORDS, hardware.fingerprint) as store:
        for name, entry in network.entries.items():
            task = network.task(name)
            best = fastest([record.result for record in store.records(task.content_hash)])
            if best is not None:
                mod = Space(task.mod, hardware).apply(best.point).mod
                scheduled |= dict.fromkeys(entry.names, mod)
    graph = network.graph()
    joined = tvm_joins.join_in_place(graph, scheduled)
    with tempfile.TemporaryDirectory() as folder:
        contenders = [Contender("vendor", vendor_of(path), path.resolve())]
        for name, mod in (("copied", graph), ("joined", joined)):
            library = Path(folder) / f"{name}.so"
            executable = tvm_relax.compile_network(
                tvm_relax.with_kernels(mod, scheduled), hw.target(hardware)
            )
            tvm_relax.export_network(executable, library)
            contenders.append(Contender(name, "tvm", library))
        inputs = network.description.inputs
        timings = compare(contenders, inputs, hardware, reference="vendor", turns=18).timings
    cells = []
    for name in ("copied", "joined", "vendor"):
        low, estimate, high = (end_s * 1e3 for end_s in timings[name].interval())
        cells.append(f"{estimate:.3f} ({low:.3f} to {high:.3f})")
    gone = len(tvm_joins.left_out(graph, joined))
    return f"| {network.name} | {gone} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = [
        "| network | concatenations gone | copied, ms | joined, ms | ONNX Runtime or torch, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [row(directory, hardware) for directory in arguments.directories]
    print("\n".join(lines))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
