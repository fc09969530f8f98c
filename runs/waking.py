"""What a kernel takes on cores that idled.

    python runs/waking.py --table runs/waking.md [--rounds 80]

A process holds the reference kernel, as measuring workers do, waits for a while and then calls it
many times in a row; the table has its time by the number of the call, over the fastest tenth of all
calls, median of the rounds. Waits are taken in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from schedenv import hardware as hw

CALLS = 60
SHOWN = (1, 2, 4, 8, 16, 24, 32, 60)
WAITS_S = (0.0, 2e-3, 10e-3, 30e-3, 100e-3)


class Holder:
    """A process that holds the kernel."""

    def __init__(self, hardware: hw.Hardware) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--child"],
            env={**os.environ, **hw.worker_environment(hardware)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, calls: int) -> list[float]:
        """Seconds of so many calls in a row."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(calls, file=self._child.stdin, flush=True)
        seconds: list[float] = json.loads(self._child.stdout.readline())
        return seconds

    def end(self) -> None:
        """Let it go."""
        self._child.communicate()


def child() -> None:
    """Run the kernel as often as each line of the input says."""
    from schedenv.calibration import reference_kernel
    from schedenv.measure.placement import Placement

    kernel, placement = reference_kernel(hw.detect()), Placement()
    kernel.time_s()
    placement.beside_pool()
    for line in sys.stdin:
        print(json.dumps([kernel.time_s() for _ in range(int(line))]), flush=True)


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child()
        return
    hardware = hw.detect()
    holder = Holder(hardware)
    times: dict[float, list[list[float]]] = {wait_s: [] for wait_s in WAITS_S}
    holder.run(CALLS)
    for _ in range(arguments.rounds):
        for wait_s, rounds in times.items():
            holder.run(CALLS)
            time.sleep(wait_s)
            rounds.append(holder.run(CALLS))
    holder.end()
    undisturbed_s = np.quantile(list(times.values()), 0.1)
    head = " | ".join(f"call {number}" for number in SHOWN)
    lines = [f"| after a wait of | {head} |", "|---|" + "---:|" * len(SHOWN)]
    for wait_s, rounds in times.items():
        medians = np.median(np.array(rounds), axis=0) / undisturbed_s
        cells = " | ".join(f"{medians[number - 1]:.2f}" for number in SHOWN)
        lines.append(f"| {wait_s * 1e3:.0f} ms | {cells} |")
    print("\n".join(lines))
    if arguments.table:
        text = [
            "# Kernels on cores that idled", "",
            "Made by `python runs/waking.py`, which says what is measured, on "
            f"{hardware.cpu_model} ({hardware.fingerprint}), "
            f"{time.strftime('%Y-%m-%d', time.gmtime())}. Undisturbed, a call takes "
            f"{undisturbed_s * 1e6:.0f} us.", "",
        ]  # fmt: skip
        arguments.table.write_text("\n".join([*text, *lines]) + "\n")


if __name__ == "__main__":
    main()
