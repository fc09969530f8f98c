"""What it gains that a network's kernels are chosen, and their weights packed, in the network.

    python runs/in_network.py DIR... [--table FILE.md]

DIR is the --out of a finished `schedenv tune` of a network. It is compiled with those schedules
that were fastest apart, weights as they lie in the file, and timed in turn beside what the run has
made and the vendor's library, outputs verified.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from run_tables import cell, print_table, timed_beside_vendor

from schedenv import hardware as hw
from schedenv.measure.result import Result, Status
from schedenv.networks.build import LIBRARY, link
from schedenv.networks.report import read_report
from schedenv.networks.variants import Variant
from schedenv.space import Point, Space
from schedenv.tasks.networks.prepare import prepare
from schedenv.tuning import run_dir

HEAD = (
    "network", "kernels with schedules", "with another one", "packed", "apart, ms", "chosen, ms",
    "times as fast",
)  # fmt: skip
APART, CHOSEN = "apart", "chosen"


def row(directory: Path, hardware: hw.Hardware) -> list[str]:
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
        libraries = {APART: plain.library, CHOSEN: directory / LIBRARY}
        timings = timed_beside_vendor(network, path, libraries, hardware)
    return [
        network.name,
        str(len(kernels)),
        str(sum(kernel["point"] != kernel["point_apart"] for kernel in kernels)),
        str(sum(kernel["packed"] for kernel in kernels)),
        *(cell(timings[who].interval(), 1e3) for who in (APART, CHOSEN)),
        cell(timings[APART].ratio(timings[CHOSEN])),
    ]


if __name__ == "__main__":
    print_table(__doc__, HEAD, row)
