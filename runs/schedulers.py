"""Task schedulers against each other on a network, at equal seconds, several seeds.

    python runs/schedulers.py --network squeezenet --seconds 600 --seeds 3
        [--table runs/schedulers.md]

Every scheduler has the same agent, the same seeds and the same seconds; the order of the runs is
shuffled, so that drift favours nobody. At the end all compiled networks are timed in turn,
each in nine processes of its own. A series that was killed goes on with the same command.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from network_files import NAMES, network_files
from networks import Printer
from scipy.stats import t as student
from sections import write_section

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.networks.build import LIBRARY
from schedenv.networks.compare import Contender, compare
from schedenv.networks.report import REPORT, read_report
from schedenv.networks.scheduler import SCHEDULERS
from schedenv.networks.timing import TurnTimes
from schedenv.networks.tune import (
    DEFAULT_AGENT,
    NetworkRequest,
    tune_network,
    vendor_of,
)
from schedenv.tasks.networks.prepare import prepare

CONTROL = "round-robin"

PREFACE = """\
# Task schedulers on networks

Each section is written by `python runs/schedulers.py --network NAME --seconds S --seeds N --table
runs/schedulers.md`. A ratio is the latency of round-robin's network over that of another
scheduler's with the same seed, above 1 being better than round-robin; all networks of a section are
timed in one run, in turn, outputs verified. The first interval of a ratio is of the timing alone,
over nine processes of each network; that of the geometric mean is of the seeds (Student's t on
logarithms): with three seeds it is wide.
"""


def tune_all(arguments: argparse.Namespace, runs: Sequence[tuple[str, int]], file: Path) -> None:
    """Tune with each scheduler and seed, in random order; finished runs are not repeated."""
    machine = peaks(hw.detect())
    order = np.random.default_rng(0).permutation(len(runs))
    for number, index in enumerate(order, start=1):
        scheduler, seed = runs[index]
        out = folder(arguments, scheduler, seed)
        if (out / REPORT).exists():
            continue
        print(f"{number} of {len(runs)}: {scheduler}, seed {seed}", flush=True)
        request = NetworkRequest(
            file, arguments.seconds, out, agent=arguments.agent, scheduler=scheduler, seed=seed,
            resume=(out / "run.json").exists(),
        )  # fmt: skip
        tune_network(request, machine, Printer())


def folder(arguments: argparse.Namespace, scheduler: str, seed: int) -> Path:
    """The run directory of one scheduler and seed."""
    run = f"{arguments.network}-{arguments.agent}-{arguments.seconds:.0f}s"
    return Path(arguments.out / run / f"{scheduler}-{seed}")


def geometric_mean(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Low end, estimate and high end of the 95 % interval over seeds; no interval for one."""
    logs = np.log(ratios)
    mean = float(logs.mean())
    if len(logs) < 2:
        return math.nan, math.exp(mean), math.nan
    half = float(student.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return math.exp(mean - half), math.exp(mean), math.exp(mean + half)


def section(
    arguments: argparse.Namespace,
    timings: Mapping[tuple[str, int], TurnTimes],
    vendor: TurnTimes,
) -> str:
    """The Markdown of one network."""
    seeds = range(arguments.seeds)
    lines = [
        f"## {arguments.network}, {arguments.seconds:.0f} s, {arguments.seeds} seeds",
        "",
        f"Agent `{arguments.agent}`; {hw.detect().cpu_model}, {hw.detect().cores} threads for "
        f"everybody, {datetime.now(UTC).date()}. ONNX Runtime or torch, which verifies the "
        f"outputs, takes {vendor.latency_s * 1e3:.3f} ms.",
        "",
        "| scheduler | seed | trials | ms | 95 % | times as fast as round-robin |",
        "|---|---:|---:|---:|---|---|",
    ]
    ratios: dict[str, list[float]] = {name: [] for name in SCHEDULERS}
    for name, seed in itertools.product(SCHEDULERS, seeds):
        times, control = timings[name, seed], timings[CONTROL, seed]
        low, ratio, high = control.ratio(times)
        ratios[name].append(ratio)
        trials = read_report(folder(arguments, name, seed))["trials"]
        from_ms, ms, to_ms = (f"{seconds * 1e3:.3f}" for seconds in times.interval())
        against = "" if name == CONTROL else f"{ratio:.3f} ({low:.3f} to {high:.3f})"
        lines.append(f"| {name} | {seed} | {trials:,} | {ms} | {from_ms} to {to_ms} | {against} |")
    lines += ["", "| scheduler | geometric mean | 95 % over seeds |", "|---|---:|---|"]
    for name in SCHEDULERS:
        if name != CONTROL:
            low, mean, high = geometric_mean(ratios[name])
            interval = "one seed" if math.isnan(low) else f"{low:.3f} to {high:.3f}"
            lines.append(f"| {name} | {mean:.3f} | {interval} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NAMES, default="squeezenet")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--agent", default=DEFAULT_AGENT)
    parser.add_argument("--out", type=Path, default=Path("out/schedulers"))
    parser.add_argument("--table", type=Path, default=None)
    arguments = parser.parse_args()
    file = network_files(arguments.network, arguments.out).tuned
    runs = list(itertools.product(SCHEDULERS, range(arguments.seeds)))
    tune_all(arguments, runs, file)
    judge = vendor_of(file)
    contenders = [Contender(judge, judge, file.resolve())]
    contenders += [
        Contender(f"{name}-{seed}", "tvm", folder(arguments, name, seed) / LIBRARY)
        for name, seed in runs
    ]
    comparison = compare(contenders, prepare(file).description.inputs, hw.detect(), reference=judge)
    ours = {(name, seed): comparison.timings[f"{name}-{seed}"] for name, seed in runs}
    text = section(arguments, ours, comparison.timings[judge])
    print(f"\n{text}")
    if arguments.table is not None:
        write_section(arguments.table, PREFACE, arguments.network, text)


if __name__ == "__main__":
    main()
