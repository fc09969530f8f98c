"""Record the tables that are shipped in `schedenv/tables`.

    python runs/record_tables.py [--only gmm,dep] [--points 700] [--looks 3] [--to schedenv/tables]

Nothing else may run on the machine meanwhile; a table takes about ten minutes. Tables that exist
are left alone, interrupted ones go on, so it can be stopped and started again at any time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.cli.record import progress_line, report
from schedenv.space import Space, fit_restriction
from schedenv.tasks import resolve
from schedenv.tuning.recording import RecordProgress, RecordRequest, record

# Different families, each small enough to run in well under a millisecond: then compiling is the
# cost of a trial, and a table is recorded in minutes.
TASKS = {
    "gmm": "gmm:1x128x128x128",
    "c1d": "c1d:1x128x32x64x3x1x1",
    "c2d": "c2d:1x14x14x32x64x3x1x1",
    "dep": "dep:1x28x28x64x3x1x1",
    "cbr": "cbr:1x14x14x32x64x3x1x1",
    "t2d": "t2d:1x8x8x64x32x4x2x1",
    "sfm": "sfm:128x256",
    "tbg": "tbg:1x32x4x32",
}


class Printer:
    """Prints how far a recording is, now and then."""

    def __init__(self) -> None:
        self._printed_s = 0.0

    def __call__(self, progress: RecordProgress) -> None:
        """A look was taken, or a stage begins."""
        if time.monotonic() - self._printed_s > 20:
            self._printed_s = time.monotonic()
            print(f"  {progress.stage}: {progress_line(progress)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(TASKS), help="Names, separated by commas.")
    parser.add_argument("--points", type=int, default=700, help="Most points of a table.")
    parser.add_argument("--looks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("schedenv/tables"))
    parser.add_argument("--work", type=Path, default=Path("out/tables"))
    arguments = parser.parse_args()
    hardware = hw.detect()
    peaks(hardware)
    for name in arguments.only.split(","):
        task = resolve(TASKS[name])
        final = arguments.to / f"{name}.parquet"
        if final.exists():
            print(f"{name}: {final} is there")
            continue
        restriction = fit_restriction(Space(task.mod, hardware), arguments.points)
        request = RecordRequest(
            task,
            restriction,
            arguments.work / f"{name}.parquet",
            arguments.points,
            arguments.seed,
            arguments.looks,
        )
        if request.records_dir.exists():
            request = RecordRequest(**{**vars(request), "resume": True})
        print(f"{name}: {task.spec}", flush=True)
        if not request.out.exists():
            print(report(record(request, Printer()), request), flush=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        final.write_bytes(request.out.read_bytes())


if __name__ == "__main__":
    main()
