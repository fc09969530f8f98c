"""Tables with a line for each finished run of a network, which is compiled and timed again."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from schedenv import hardware as hw
from schedenv.networks.compare import Contender, compare
from schedenv.networks.timing import Range, TurnTimes
from schedenv.networks.tune import vendor_of
from schedenv.tasks.networks.network import Network

VENDOR = "vendor"
TURNS = 18


def timed_beside_vendor(
    network: Network, path: Path, libraries: dict[str, Path], hardware: hw.Hardware
) -> dict[str, TurnTimes]:
    """Compiled networks and who runs the file itself, in turn, outputs verified."""
    contenders = [Contender(VENDOR, vendor_of(path), path.resolve())]
    contenders += [Contender(name, "tvm", library) for name, library in libraries.items()]
    inputs = network.description.inputs
    return compare(contenders, inputs, hardware, reference=VENDOR, turns=TURNS).timings


def cell(ends: Range, unit: float = 1.0) -> str:
    """An estimate and its interval."""
    low, estimate, high = (end * unit for end in ends)
    return f"{estimate:.3f} ({low:.3f} to {high:.3f})"


def print_table(
    description: str | None, head: Sequence[str], row: Callable[[Path, hw.Hardware], Sequence[str]]
) -> None:
    """Print a line for each run directory that the command line names, or write it with --table.

    Args:
        description: For --help.
        head: Names of the columns; the first is the network's.
        row: The cells of a run directory.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = [_line(head), f"|---|{'---:|' * (len(head) - 1)}"]
    lines += [_line(row(directory, hardware)) for directory in arguments.directories]
    text = "\n".join(lines)
    print(text)
    if arguments.table:
        arguments.table.write_text(f"{text}\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
