"""How soon agents have what MetaSchedule has after 320 trials, and what they have at its end.

    python runs/time_to_metaschedule.py --tasks core --seeds 5 --agents greedy,random
        [--trials 320] [--pieces 2] [--out out/time-to-metaschedule]
        [--rows runs/time_to_metaschedule.jsonl] [--table FILE.md]

A piece is one task with one seed: MetaSchedule first, then every agent, in random order, for as
many seconds as MetaSchedule took; then the finalists of all are timed together in a fresh process,
on inputs that no search has seen. Curves are put to the scale of those times. What is done is kept
in --out, so the run can be ended at any time and goes on when it is started again; --pieces ends it
after so many new ones. Everybody in a piece ran on one machine within minutes, so pieces of several
machines and days make one table: --rows holds their results, each with its machine, and what is
in it is not run again.

Two ratios of wall times are printed. `found` counts MetaSchedule only until it had found its best,
`whole` until its trials were over, which is when its user knows it. Where an agent never had as
good a kernel, its whole time counts, and the ratio is an upper bound ("<=").
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from schedenv import hardware as hw
from schedenv.comparison.arenas import LiveArena
from schedenv.comparison.attempts import Attempt, Facts, Finals
from schedenv.comparison.contestant import contestant
from schedenv.comparison.finals import confirm_all
from schedenv.comparison.scores import Axis, moment_of, put_to_scale
from schedenv.tasks import resolve_many
from schedenv.tuning.budget import Budget


class Piece(msgspec.Struct, frozen=True):
    """One task with one seed: the attempts of everybody, MetaSchedule's first, and the finals."""

    attempts: tuple[Attempt, ...]
    finals: Finals


class Row(msgspec.Struct, frozen=True):
    """One agent in one piece; ratios above 1 are in its favour.

    Attributes:
        task: The task's name.
        seed: The seed.
        agent: The agent.
        theirs_s: MetaSchedule's confirmed latency, seconds a call.
        ours_s: The agent's.
        found: MetaSchedule's time until it had found its best over the agent's.
        whole: MetaSchedule's whole time over the agent's.
        reached: Whether the agent ever had as good a kernel; the ratios are at most that if not.
        reference: Whom the agent was measured against.
        trials: The reference's budget.
        elapsed_s: How long the reference took, and so the agent's budget.
        machine: The processor, its fingerprint and the threads of everybody.
        date: The day it was run, UTC.
    """

    task: str
    seed: int
    agent: str
    theirs_s: float
    ours_s: float
    found: float
    whole: float
    reached: bool
    reference: str
    trials: int
    elapsed_s: float
    machine: str
    date: str


def run_piece(
    arena: LiveArena,
    task: str,
    seed: int,
    trials: int,
    agents: Sequence[str],
    folder: Path,
    hardware: hw.Hardware,
) -> Piece:
    """Run what is left of a piece."""
    reference = arena.agents[0]
    folder.mkdir(parents=True, exist_ok=True)
    attempts = [attempt_of(arena, task, reference, seed, Budget(trials=trials), folder)]
    seconds = attempts[0].elapsed_s
    if attempts[0].failure is None:
        for name in random.Random(f"{task} {seed}").sample(agents, len(agents)):
            budget = Budget(seconds=seconds)
            attempts.append(attempt_of(arena, task, name, seed, budget, folder))
    (resolved,) = resolve_many(task)
    return Piece(tuple(attempts), confirm_all(resolved, hardware, attempts))


def attempt_of(
    arena: LiveArena, task: str, agent: str, seed: int, budget: Budget, folder: Path
) -> Attempt:
    """One attempt, read from its file if it was made before."""
    file = folder / f"{agent}.json"
    if file.exists():
        return msgspec.json.decode(file.read_bytes(), type=Attempt)
    attempt = arena.attempt(task, agent, seed, budget)
    keep(attempt, file)
    print(
        f"{task} seed {seed} {agent}: {attempt.trials} trials in {attempt.elapsed_s:.0f} s"
        + (f", {attempt.failure}" if attempt.failure else ""),
        flush=True,
    )
    return attempt


def keep(content: msgspec.Struct, file: Path) -> None:
    """Write a file that is whole or absent."""
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(content))
    new.replace(file)


def judge(piece: Piece, trials: int, machine: str) -> list[Row]:
    """Every agent of a piece against MetaSchedule."""
    finals = piece.finals
    confirmed = {result.agent: result.latency_s for result in finals.results}
    fact = Facts(finals.task, finals.untuned_s, min(confirmed.values()))
    theirs, *agents = put_to_scale(piece.attempts, {finals.task: finals})
    # Its own curve was put to the scale of this time by a factor that was rounded.
    target_s = confirmed[theirs.agent] * (1 + 1e-9)
    found_s = moment_of(theirs, fact, Axis.SECONDS, target_s)
    rows = []
    for ours in agents:
        needed_s = moment_of(ours, fact, Axis.SECONDS, target_s)
        reached = math.isfinite(needed_s)
        if not reached:
            needed_s = max(ours.elapsed_s, theirs.elapsed_s)
        rows.append(
            Row(
                theirs.task, theirs.seed, ours.agent, target_s, confirmed[ours.agent],
                ratio(found_s, needed_s), ratio(theirs.elapsed_s, needed_s), reached,
                theirs.agent, trials, round(theirs.elapsed_s, 1), machine,
                time.strftime("%Y-%m-%d", time.gmtime()),
            )
        )  # fmt: skip
    return rows


def ratio(numerator_s: float, denominator_s: float) -> float:
    """1 where both had it before they began: a program that cannot be improved."""
    return 1.0 if denominator_s == 0 else numerator_s / denominator_s


def table(rows: Sequence[Row]) -> list[str]:
    """Geometric means by agent over the tasks' geometric means, and every piece."""
    lines = [
        "| agent | tasks | pieces | as good a kernel in | whole, ratio | found, ratio "
        "| quality at equal time | worst task's quality |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for agent in dict.fromkeys(row.agent for row in rows):
        mine = [row for row in rows if row.agent == agent]
        whole, found, quality = (
            by_task([(row.task, value(row)) for row in mine])
            for value in (lambda row: row.whole, lambda row: row.found, quality_of)
        )
        worst = min(quality, key=quality.__getitem__)
        reached = sum(row.reached for row in mine)
        lines.append(
            f"| `{agent}` | {len(quality)} | {len(mine)} | {reached} pieces "
            f"| {mean(whole)} | {mean(found)} | {mean(quality)} | {quality[worst]:.2f} ({worst}) |"
        )
    lines += [
        "",
        "| task | seed | agent | MetaSchedule, us | agent, us | quality at equal time "
        "| found, ratio | whole, ratio | seconds of each | machine, day |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        most = "" if row.reached else "<= "
        lines.append(
            f"| {row.task} | {row.seed} | {row.agent} | {row.theirs_s * 1e6:.1f} "
            f"| {row.ours_s * 1e6:.1f} | {quality_of(row):.2f} "
            f"| {most}{row.found:.1f} | {most}{row.whole:.1f} | {row.elapsed_s:.0f} "
            f"| {row.machine}, {row.date} |"
        )
    return lines


def quality_of(row: Row) -> float:
    """How much faster the agent's kernel is than MetaSchedule's."""
    return row.theirs_s / row.ours_s


def by_task(ratios: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Geometric means of each task's seeds."""
    logs: dict[str, list[float]] = {}
    for task, value in ratios:
        logs.setdefault(task, []).append(math.log(value))
    return {task: math.exp(np.mean(values)) for task, values in logs.items()}


def mean(ratios: Mapping[str, float], resamples: int = 10_000) -> str:
    """The tasks' geometric mean with its 95 % bootstrap interval over tasks."""
    logs = np.log(list(ratios.values()))
    drawn = np.random.default_rng(0).choice(logs, (resamples, len(logs))).mean(axis=1)
    low, high = np.exp(np.quantile(drawn, (0.025, 0.975)))
    return f"{math.exp(logs.mean()):.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Run pieces, and print or write the table of all that are there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="core", help="suites and TASKs, by commas")
    parser.add_argument("--agents", default="greedy,random", help="contestants, by commas")
    parser.add_argument("--reference", default="metaschedule")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=320, help="of the reference")
    parser.add_argument("--pieces", type=int, default=None, help="end after so many new ones")
    parser.add_argument("--out", type=Path, default=Path("out/time-to-metaschedule"))
    parser.add_argument("--rows", type=Path, default=Path("runs/time_to_metaschedule.jsonl"))
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    machine = f"{hardware.cpu_model} ({hardware.fingerprint}), {hardware.cores} threads"
    tasks = [task for spec in arguments.tasks.split(",") for task in resolve_many(spec)]
    reference, agents, trials = arguments.reference, arguments.agents.split(","), arguments.trials
    everybody = [contestant(name) for name in (reference, *agents)]
    arena = LiveArena(everybody, tasks, hardware, arguments.out)
    rows = read_rows(arguments.rows)
    done = {(row.task, row.seed, row.agent, row.reference, row.trials) for row in rows}
    new = 0
    # Seed after seed, so that a run that is ended early has whole rounds over the tasks.
    for seed, task in itertools.product(range(arguments.seeds), tasks):
        left = [name for name in agents if (task.name, seed, name, reference, trials) not in done]
        if not left or new == arguments.pieces:
            continue
        folder = arguments.out / "pieces" / f"{task.name.replace('/', '-')}-{trials}-{seed}"
        piece = run_piece(arena, task.name, seed, trials, left, folder, hardware)
        keep(piece, folder / f"{'+'.join(sorted(left))}.piece")
        rows += judge(piece, trials, machine)
        arguments.rows.write_bytes(msgspec.json.Encoder().encode_lines(sorted(rows, key=place)))
        new += 1
        print("\n".join(table(rows)), flush=True)
    if arguments.table:
        title = f"# Time to what MetaSchedule has after {trials} trials"
        lines = [title, "", *table(sorted(rows, key=place))]
        arguments.table.write_text("\n".join(lines) + "\n")


def read_rows(file: Path) -> list[Row]:
    """What earlier runs found, on this machine and others."""
    return msgspec.json.Decoder(Row).decode_lines(file.read_bytes()) if file.exists() else []


def place(row: Row) -> tuple[str, int, str]:
    """Where a row stands in the table."""
    return row.task, row.seed, row.agent


if __name__ == "__main__":
    main()
