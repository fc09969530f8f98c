"""What it gains that kernels store straight into concatenations.

    python runs/joined_networks.py DIR... [--table FILE.md]

DIR is the --out of a finished `schedenv tune` of a network. It is compiled twice with the best
schedules of its records, with concatenations joined and not, and both are timed in turn beside the
vendor's library, outputs verified.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from run_tables import VENDOR, cell, print_table, timed_beside_vendor

from schedenv import hardware as hw
from schedenv import tvm_joins, tvm_relax
from schedenv.networks.slices import fastest
from schedenv.records import RecordStore
from schedenv.space import Space
from schedenv.tasks.networks.prepare import prepare
from schedenv.tuning import run_dir

HEAD = (
    "network", "concatenations gone", "copied, ms", "joined, ms", "ONNX Runtime or torch, ms",
)  # fmt: skip
COPIED, JOINED = "copied", "joined"


def row(directory: Path, hardware: hw.Hardware) -> list[str]:
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
        libraries = {}
        for name, mod in ((COPIED, graph), (JOINED, joined)):
            libraries[name] = Path(folder) / f"{name}.so"
            executable = tvm_relax.compile_network(
                tvm_relax.with_kernels(mod, scheduled), hw.target(hardware)
            )
            tvm_relax.export_network(executable, libraries[name])
        timings = timed_beside_vendor(network, path, libraries, hardware)
    gone = len(tvm_joins.left_out(graph, joined))
    times = (cell(timings[who].interval(), 1e3) for who in (COPIED, JOINED, VENDOR))
    return [network.name, str(gone), *times]


if __name__ == "__main__":
    print_table(__doc__, HEAD, row)
