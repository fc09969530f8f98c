"""Kill a tuning run with SIGKILL at random moments, resume it, and look at what is left.

One run directory grows: tune, kill, check, resume, kill, ... After every kill the store must be
whole, hold every record that was seen in it before the kill, in the same order, and no program
twice. At the end the run is resumed once more and finishes.

    python runs/kill_moments.py --moments 100 --out out/kill_moments

A second call with the same directory adds to the first: the table counts all kills.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from schedenv import hardware as hw
from schedenv.records import Archive, RecordStore
from schedenv.tuning import run_dir

TASK = "gmm:1x32x32x32"
KILLS = "kills.jsonl"
STARTUP_SHARE = 0.2
STARTUP_S = 8.0
START_LIMIT_S = 300.0
SEARCH_S = 5.0
POLL_S = 0.01


@dataclass(frozen=True)
class Moment:
    """One kill.

    Attributes:
        phase: `start` if it came before the resumed run stored anything new, else `search`.
        seen: Records that were seen in the store before the kill.
        kept: Records in the store after it.
        lost: Records seen before the kill, or before this start of the run, that are gone.
        twice: Programs and points that the store has twice.
        log_bytes: Size of the write-ahead log that the kill left behind.
    """

    phase: str
    seen: int
    kept: int
    lost: int
    twice: int
    log_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/kill_moments"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    log = arguments.out.with_name(f"{arguments.out.name}-{KILLS}")
    earlier = log.read_text().splitlines() if log.exists() else []
    moments = [Moment(**json.loads(line)) for line in earlier]
    rng = random.Random(f"{arguments.seed} {len(moments)}")
    for _ in range(arguments.moments):
        moments.append(kill_once(arguments.out, rng))
        with log.open("a") as file:
            file.write(json.dumps(asdict(moments[-1])) + "\n")
        print(f"{len(moments):4} {moments[-1]}", flush=True)
    finished = finish(arguments.out)
    print(table(moments, finished))
    if any(moment.lost or moment.twice for moment in moments):
        sys.exit("records were lost, or measured twice")


def kill_once(out: Path, rng: random.Random) -> Moment:
    """Start or resume the run, kill it at a random moment, check the store."""
    before = forms(out)
    with started(out) as run:
        if rng.random() < STARTUP_SHARE:
            time.sleep(rng.uniform(0, STARTUP_S))
        else:
            wait_for_more(out, len(before), run)
            # Results come in bursts; half of the kills fall within a tenth of a second of one.
            time.sleep(SEARCH_S * 10 ** rng.uniform(-3.4, 0))
        seen = forms(out)
        run.kill()
        run.wait()
    log = out / (run_dir.RECORDS + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    kept, twice = check(out)
    return Moment(
        phase="search" if len(seen) > len(before) else "start",
        seen=len(seen),
        kept=len(kept),
        lost=len(set(before + seen) - set(kept)),
        twice=twice,
        log_bytes=log_bytes,
    )


def finish(out: Path) -> int:
    """Resume the run without killing it; how many records there are at the end."""
    before, _ = check(out)
    with started(out, trials=len(before) + 3) as run:
        assert run.wait(START_LIMIT_S) == 0, "the resumed run fails"
    after, _ = check(out)
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3, "resuming measured more or less than was asked for"
    return len(after)


@contextlib.contextmanager
def started(out: Path, trials: int = 100_000) -> Iterator[subprocess.Popen[bytes]]:
    """The tuning run, killed at the end if it still goes on."""
    command = [
        sys.executable, "-c", "from schedenv.cli import main; main()", "tune", TASK,
        "--agent", "random", "--seed", "7", "--trials", str(trials), "--out", str(out),
    ]  # fmt: skip
    if (out / run_dir.RUN).exists():
        command.append("--resume")
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield run
    finally:
        run.kill()
        run.wait()
        if run.stderr is not None:
            run.stderr.close()


def wait_for_more(out: Path, count: int, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run has stored something."""
    end_s = time.monotonic() + START_LIMIT_S
    while len(forms(out)) <= count:
        if run.poll() is not None:
            assert run.stderr is not None
            raise AssertionError(f"the run ended by itself: {run.stderr.read().decode()}")
        assert time.monotonic() < end_s, "the run stores nothing"
        time.sleep(POLL_S)


def forms(out: Path) -> list[str]:
    """The canonical forms in the store, in order, as any other process sees them."""
    path = out / run_dir.RECORDS
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        return [row[0] for row in connection.execute("select canonical from records order by id")]
    except sqlite3.OperationalError:  # the tables are not made yet
        return []
    finally:
        connection.close()


def check(out: Path) -> tuple[list[str], int]:
    """The canonical forms in the store, and how many forms and points are there twice.

    Raises:
        StoreError: A record cannot be read.
    """
    path = out / run_dir.RECORDS
    if not path.exists():
        return [], 0
    with Archive(path) as archive:
        assert archive.damage() == [], "the store is damaged"
    with RecordStore(path, hw.detect().fingerprint) as store:
        records = store.records(strict=True)
    kept = [record.canonical for record in records]
    points = [record.result.point for record in records]
    return kept, 2 * len(records) - len(set(kept)) - len(set(points))


def table(moments: list[Moment], finished: int) -> str:
    """What happened, as Markdown."""
    phases = Counter(moment.phase for moment in moments)
    late = sum(moment.kept - moment.seen for moment in moments)
    logs = sum(moment.log_bytes > 0 for moment in moments)
    last = moments[-1].kept if moments else 0
    rows = [
        ("kills", len(moments)),
        ("while starting or replaying", phases["start"]),
        ("while searching", phases["search"]),
        ("that left a write-ahead log behind", logs),
        ("records after the last kill", last),
        ("of them committed between the last look and the kill", late),
        ("records lost", sum(moment.lost for moment in moments)),
        ("programs or points measured twice", sum(moment.twice for moment in moments)),
        ("records after the run was resumed to its end", finished),
    ]
    lines = ["| | count |", "|---|---|", *(f"| {name} | {count} |" for name, count in rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
