"""How soon agents have what MetaSchedule has after 320 trials, and what they have at its end.

    python runs/time_to_metaschedule.py --tasks core --seeds 5 --agents greedy,random
        [--first-seed 0] [--trials 320] [--pieces 2] [--out out/time-to-metaschedule]
        [--rows runs/time_to_metaschedule.jsonl] [--table FILE.md] [--again]

A piece is one task with one seed: MetaSchedule first, for its time is the budget, then every agent,
in random order, for as many seconds; then the finalists of all are timed together in a fresh
process, on inputs that no search has seen. Curves are put to the scale of those times. What is done
is kept in --out, so the run can be ended at any time and goes on when it is started again; --pieces
ends it after so many new ones. Everybody in a piece ran on one machine within minutes, so pieces of
several machines and days make one table: --rows holds their results, each with its machine, and
what is in it is not run again. A machine's neighbour may double the time of one kernel and leave
the other alone, so a row says how much slower than undisturbed the machine was in the finals;
--again times the finalists of disturbed ones again, and keeps the calmer finals. How wide the
intervals are has no part in that: it is what processes differ by.

Two ratios of wall times are printed. `found` counts MetaSchedule only until it had found its best,
`whole` until its trials were over, which is when its user knows it. Where an agent never had as
good a kernel, its whole time counts, and the ratio is an upper bound ("<="). Both find kernels that
differ by less than the timing can tell, so each ratio is also given for a kernel within 2 % of
MetaSchedule's best, by whoever found it (`found` then stops MetaSchedule's clock there, too).
Quality has a range, of all that the 95 % intervals of both times allow: a piece is surely slower if
all of it is below 1. Rows of earlier days have none.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from schedenv import hardware as hw
from schedenv.comparison.arenas import LiveArena
from schedenv.comparison.attempts import Attempt, Facts, Finals
from schedenv.comparison.contestant import contestant
from schedenv.comparison.finals import confirm_all
from schedenv.comparison.scores import Axis, moment_of, put_to_scale
from schedenv.measure.timing import CALM
from schedenv.tasks import resolve_many
from schedenv.tuning.budget import Budget

NEAR = 1.02

PREFACE = """\
Made by `python runs/time_to_metaschedule.py`, which says what the columns mean. MetaSchedule's
attempt came first, then the agent's, for as many seconds; the kernels of both were timed again, in
turn, in fresh processes (most rows so far: in one, which `runs/README.md` names; their intervals
are too narrow). Ranges are 95 % bootstrap intervals over the tasks, not over seeds.
`slowdown` is how much slower than undisturbed the machine was in those finals, lower quartile: from
1.15 on, a neighbour had part of a core in at least three of four moments. In brackets after the
quality: what the 95 % intervals of both kernels' times in those finals allow; `surely slower`
counts the pieces where all of that is below 1."""


class Piece(msgspec.Struct, frozen=True):
    """One task with one seed: the attempts of everybody, MetaSchedule's first, and the finals.

    Attributes:
        machine: The processor, its fingerprint and the threads of everybody.
        date: The day, UTC.
    """

    attempts: tuple[Attempt, ...]
    finals: Finals
    machine: str
    date: str


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
        near_found: `found` for a kernel within 2 %.
        near_whole: `whole` for a kernel within 2 %.
        near_reached: `reached` for a kernel within 2 %.
        reference: Whom the agent was measured against.
        trials: The reference's budget.
        elapsed_s: How long the reference took, and so the agent's budget.
        machine: Of the piece.
        date: Of the piece.
        slowdown: `Finals.slowdown`; None if that was not noted.
        quality_low: The worst that both confirmed intervals allow of the quality; None if that was
            not noted.
        quality_high: The best.
    """

    task: str
    seed: int
    agent: str
    theirs_s: float
    ours_s: float
    found: float
    whole: float
    reached: bool
    near_found: float
    near_whole: float
    near_reached: bool
    reference: str
    trials: int
    elapsed_s: float
    machine: str
    date: str
    slowdown: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None


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
    machine = f"{hardware.cpu_model} ({hardware.fingerprint}), {hardware.cores} threads"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return Piece(tuple(attempts), confirm_all(resolved, hardware, attempts), machine, date)


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


def calmer(piece: Piece, hardware: hw.Hardware) -> Piece:
    """The piece with the calmer of two finals, if its own were disturbed."""
    if slowdown_of(piece.finals) < CALM:
        return piece
    (task,) = resolve_many(piece.finals.task)
    again = confirm_all(task, hardware, piece.attempts)
    print(f"{task.name}: slowdown {piece.finals.slowdown}, now {again.slowdown}", flush=True)
    better = slowdown_of(again) < slowdown_of(piece.finals)
    return msgspec.structs.replace(piece, finals=again) if better else piece


def slowdown_of(finals: Finals) -> float:
    """How much a neighbour slowed arithmetic down; infinite if that was not noted."""
    return math.inf if finals.slowdown is None else finals.slowdown


def keep(content: msgspec.Struct, file: Path) -> None:
    """Write a file that is whole or absent."""
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(content))
    new.replace(file)


def judge(piece: Piece, trials: int) -> list[Row]:
    """Every agent of a piece against MetaSchedule."""
    finals = piece.finals
    confirmed = {result.agent: result.latency_s for result in finals.results}
    ranges = {result.agent: (result.low_s, result.high_s) for result in finals.results}
    fact = Facts(finals.task, finals.untuned_s, min(confirmed.values()))
    theirs, *agents = put_to_scale(piece.attempts, {finals.task: finals})
    # Its own curve was put to the scale of this time by a factor that was rounded.
    target_s = confirmed[theirs.agent] * (1 + 1e-9)
    rows = []
    for ours in agents:
        exact = sooner(ours, theirs, fact, target_s)
        near = sooner(ours, theirs, fact, target_s * NEAR)
        (their_low_s, their_high_s), (low_s, high_s) = ranges[theirs.agent], ranges[ours.agent]
        rows.append(
            Row(
                theirs.task, theirs.seed, ours.agent, target_s, confirmed[ours.agent], *exact,
                *near, theirs.agent, trials, round(theirs.elapsed_s, 1), piece.machine, piece.date,
                finals.slowdown, their_low_s / high_s, their_high_s / low_s,
            )
        )  # fmt: skip
    return rows


def sooner(
    ours: Attempt, theirs: Attempt, fact: Facts, target_s: float
) -> tuple[float, float, bool]:
    """The ratios `found` and `whole` for a kernel of `target_s`, and whether we had one."""
    needed_s = moment_of(ours, fact, Axis.SECONDS, target_s)
    reached = math.isfinite(needed_s)
    if not reached:
        needed_s = max(ours.elapsed_s, theirs.elapsed_s)
    found_s = moment_of(theirs, fact, Axis.SECONDS, target_s)
    return ratio(found_s, needed_s), ratio(theirs.elapsed_s, needed_s), reached


def ratio(numerator_s: float, denominator_s: float) -> float:
    """1 where both had it before they began: a program that cannot be improved."""
    return 1.0 if denominator_s == 0 else numerator_s / denominator_s


def table(rows: Sequence[Row]) -> list[str]:
    """Geometric means by agent over the tasks' geometric means, and every piece."""
    lines = [
        "| agent | tasks | pieces | whole | found | whole, within 2 % | found, within 2 % "
        "| quality at equal time | worst task's quality | surely slower |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for agent in dict.fromkeys(row.agent for row in rows):
        mine = [row for row in rows if row.agent == agent]
        cells = [mean(by_task(mine, value)) for value in RATIOS]
        quality = by_task(mine, quality_of)
        worst = min(quality, key=quality.__getitem__)
        lines.append(
            f"| `{agent}` | {len(quality)} | {len(mine)} | " + " | ".join(cells) + " "
            f"| {mean(quality)} | {quality[worst]:.2f} ({worst}) | {surely_slower(mine)} |"
        )
    lines += [
        "",
        "| task | seed | agent | MetaSchedule, us | agent, us | quality at equal time "
        "| whole | found | whole, within 2 % | found, within 2 % | seconds of each "
        "| slowdown | machine, day |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        most = ["" if row.reached else "<= "] * 2 + ["" if row.near_reached else "<= "] * 2
        cells = [f"{sign}{value(row):.1f}" for sign, value in zip(most, RATIOS, strict=True)]
        lines.append(
            f"| {row.task} | {row.seed} | {row.agent} | {row.theirs_s * 1e6:.1f} "
            f"| {row.ours_s * 1e6:.1f} | {quality_of(row):.2f}{quality_range(row)} "
            f"| {' | '.join(cells)} "
            f"| {row.elapsed_s:.0f} | {'' if row.slowdown is None else f'{row.slowdown:.2f}'} "
            f"| {row.machine}, {row.date} |"
        )
    return lines


RATIOS: tuple[Callable[[Row], float], ...] = (
    lambda row: row.whole,
    lambda row: row.found,
    lambda row: row.near_whole,
    lambda row: row.near_found,
)


def quality_of(row: Row) -> float:
    """How much faster the agent's kernel is than MetaSchedule's."""
    return row.theirs_s / row.ours_s


def quality_range(row: Row) -> str:
    """What the confirmed intervals allow of it."""
    if row.quality_low is None or row.quality_high is None:
        return ""
    return f" ({row.quality_low:.2f} to {row.quality_high:.2f})"


def surely_slower(rows: Sequence[Row]) -> str:
    """In how many pieces the agent's kernel is slower beyond noise, of those that tell."""
    known = [row.quality_high for row in rows if row.quality_high is not None]
    return f"{sum(high < 1 for high in known)} of {len(known)} pieces"


def by_task(rows: Sequence[Row], value: Callable[[Row], float]) -> dict[str, float]:
    """Geometric means of each task's seeds."""
    logs: dict[str, list[float]] = {}
    for row in rows:
        logs.setdefault(row.task, []).append(math.log(value(row)))
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
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=320, help="of the reference")
    parser.add_argument("--pieces", type=int, default=None, help="end after so many new ones")
    parser.add_argument("--out", type=Path, default=Path("out/time-to-metaschedule"))
    parser.add_argument("--rows", type=Path, default=Path("runs/time_to_metaschedule.jsonl"))
    parser.add_argument("--again", action="store_true", help="time disturbed finalists again")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    tasks = [task for spec in arguments.tasks.split(",") for task in resolve_many(spec)]
    reference, agents, trials = arguments.reference, arguments.agents.split(","), arguments.trials
    everybody = [contestant(name) for name in (reference, *agents)]
    arena = LiveArena(everybody, tasks, hardware, arguments.out)
    rows = {key(row): row for row in read_rows(arguments.rows)}
    new = 0
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    # Seed after seed, so that a run that is ended early has whole rounds over the tasks.
    for seed, task in itertools.product(seeds, tasks):
        left = [name for name in agents if (task.name, seed, name, reference, trials) not in rows]
        folder = arguments.out / "pieces" / f"{task.name.replace('/', '-')}-{trials}-{seed}"
        if left and new != arguments.pieces:
            piece = run_piece(arena, task.name, seed, trials, left, folder, hardware)
            keep(piece, folder / f"{'+'.join(sorted(left))}.piece")
            new += 1
        # What is still in --out is judged again: it takes no time, and how may have changed.
        for file in folder.glob("*.piece"):
            piece = msgspec.json.decode(file.read_bytes(), type=Piece)
            if arguments.again:
                piece = calmer(piece, hardware)
                keep(piece, file)
            rows |= {key(row): row for row in judge(piece, trials)}
        ordered = sorted(rows.values(), key=key)
        arguments.rows.write_bytes(msgspec.json.Encoder().encode_lines(ordered))
    lines = table(ordered)
    print("\n".join(lines))
    if arguments.table:
        title = f"# Time to what MetaSchedule has after {trials} trials"
        arguments.table.write_text("\n".join([title, "", PREFACE, "", *lines]) + "\n")


def read_rows(file: Path) -> list[Row]:
    """What earlier runs found, on this machine and others."""
    return msgspec.json.Decoder(Row).decode_lines(file.read_bytes()) if file.exists() else []


def key(row: Row) -> tuple[str, int, str, str, int]:
    """What a row is about."""
    return row.task, row.seed, row.agent, row.reference, row.trials


if __name__ == "__main__":
    main()
