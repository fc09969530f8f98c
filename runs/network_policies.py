"""A policy trained on recorded tables, on networks that it never saw: beside others, live.

    python runs/network_policies.py --networks squeezenet,bert-tiny-128 --kernels 5 --seconds 10
        --to runs/network_policies.md

Trains the hierarchical agent on the shipped tables (`schedenv train`), then races it on each
network's kernels with the most floating-point operations against itself untrained, against
coordinate descent, random search and MetaSchedule (`schedenv compare`, `schedenv report`). Repeat
the command to go on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from network_files import network_files

from schedenv.measure.table_file import shipped_tables
from schedenv.tasks.networks.prepare import prepare
from schedenv.training.checkpoint import INFO_FILE

AGENTS = ("random", "greedy-forecast", "hierarchical", "metaschedule")
TRAINED = "trained"


def schedenv(*words: str) -> None:
    """Run a command of schedenv."""
    print("schedenv", *words, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("schedenv")), *words], check=True)


def heaviest(name: str, folder: Path, count: int) -> list[str]:
    """Tasks of a network, those with the most operations in all calls first."""
    file = network_files(name, folder).tuned
    entries = sorted(
        prepare(file).entries.values(), key=lambda entry: entry.calls * entry.flops, reverse=True
    )
    return [f"network:{file}/{entry.name}" for entry in entries[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default="squeezenet,bert-tiny-128")
    parser.add_argument("--kernels", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--train-seconds", type=float, default=120.0)
    parser.add_argument("--out", type=Path, default=Path("out/network-policies"))
    parser.add_argument("--to", type=Path, default=None)
    arguments = parser.parse_args()
    checkpoint, race = arguments.out / "checkpoint", arguments.out / "race"
    if not (checkpoint / INFO_FILE).exists():
        tables = [word for name in sorted(shipped_tables()) for word in ("--table", name)]
        schedenv(
            "train", "--agent", "hierarchical", *tables, "--seconds",
            str(arguments.train_seconds), "--out", str(checkpoint),
        )  # fmt: skip
    tasks = [
        word
        for network in arguments.networks.split(",")
        for spec in heaviest(network, arguments.out.parent, arguments.kernels)
        for word in ("--task", spec)
    ]
    schedenv(
        "compare", "--agents", ",".join([*AGENTS, f"{TRAINED}={checkpoint}"]), *tasks, "--seconds",
        str(arguments.seconds), "--seeds", str(arguments.seeds), "--out", str(race),
        *(["--resume"] if (race / "run.json").exists() else []),
    )  # fmt: skip
    schedenv("report", str(race))
    if arguments.to is not None:
        arguments.to.write_text((race / "report.md").read_text())


if __name__ == "__main__":
    main()
