"""Tune every member of a suite for the same time; write the table.

    python runs/core_suite.py [--suite core] [--seconds 30] [--agent greedy] [--seed 0]

Finished tasks are skipped when it is run again, so it can be stopped at any time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.tasks import members, resolve
from schedenv.tuning import run_dir
from schedenv.tuning.tune import Request, tune


def row(best: dict[str, object]) -> str:
    """One task as a line of the Markdown table."""
    tuned, baseline, speedup = best["tuned"], best["baseline"], best["speedup"]
    counts = best["counts"]
    assert isinstance(tuned, dict)
    assert isinstance(baseline, dict)
    assert isinstance(speedup, dict)
    assert isinstance(counts, dict)
    failed = sum(count for status, count in counts.items() if status != "ok")
    verified = best["verified"]
    assert isinstance(verified, dict)
    return (
        f"| {best['name']} | `{best['task']}` | {baseline['latency_us']:.1f} "
        f"| {tuned['latency_us']:.1f} ({tuned['low_us']:.1f} to {tuned['high_us']:.1f}) "
        f"| {speedup['estimate']:.1f} ({speedup['low']:.1f} to {speedup['high']:.1f}) "
        f"| {tuned['gflops_per_s']:.4g} | {tuned['fraction_of_peak']:.0%} "
        f"| {best['trials']} | {failed} | {verified['max_error_of_tolerated']:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--suite", default="core")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--agent", default="greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/core-suite"))
    parser.add_argument("--table", type=Path, default=None, help="Markdown file to write.")
    arguments = parser.parse_args()
    hardware = hw.detect()
    machine = peaks(hardware)
    results = []
    for member in members(arguments.suite):
        out = arguments.out / member.replace("/", "-")
        if not (out / run_dir.BEST).exists():
            started = (out / run_dir.RUN).exists()
            request = Request(
                resolve(member),
                arguments.agent,
                None,
                arguments.seconds,
                arguments.seed,
                out,
                resume=started,
            )
            tune(request, machine)
        results.append(run_dir.read_json(out / run_dir.BEST))
        print(row(results[-1]), flush=True)
    ratios = np.array([best["speedup"]["estimate"] for best in results])
    lines = [
        f"# Suite `{arguments.suite}`, {arguments.seconds:g} s a task, agent "
        f"`{arguments.agent}`, seed {arguments.seed}",
        "",
        f"Made by `python runs/core_suite.py --suite {arguments.suite} "
        f"--seconds {arguments.seconds:g} --agent {arguments.agent} --seed {arguments.seed}` on "
        f"{hardware.cpu_model} ({hardware.fingerprint}), {hardware.cores} threads, measured peak "
        f"{machine.flops_per_s / 1e9:.0f} GFLOP/s, {time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        "Latencies in microseconds, with 95 % intervals: finalists timed against the untuned "
        "program, interleaved, in a fresh process, on inputs that the search had not seen. "
        "Deviation is the largest error in units of the tolerated one. Untuned is TVM's code for "
        "the program without a schedule: one thread, plain loops.",
        "",
        "| task | shape | untuned | tuned | speed-up | GFLOP/s | of peak | trials | failed "
        "| deviation |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(row(best) for best in results),
        "",
        f"Geometric mean of the speed-ups: {np.exp(np.log(ratios).mean()):.1f}; "
        f"smallest: {ratios.min():.2f}.",
    ]
    if arguments.table is not None:
        arguments.table.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[-2:]))


if __name__ == "__main__":
    main()
