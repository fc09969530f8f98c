"""Tune a network from its file to a verified library: the order of things, and the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.errors import MachineError
from schedenv.measure.shared import Bench
from schedenv.networks import build
from schedenv.networks.compare import Comparison, Contender, compare
from schedenv.networks.finals import confirm_kernels
from schedenv.networks.kernel_times import Times, by_kernel, time_kernels
from schedenv.networks.scheduler import find_scheduler
from schedenv.networks.slices import Search, Slice, roofline
from schedenv.networks.timing import Range
from schedenv.records import RecordStore
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import Shapes, prepare
from schedenv.tuning import run_dir

DEFAULT_AGENT = "register-tiles"

REPORT = "report.json"
SLICES = "slices.jsonl"
UNTUNED_LIBRARY = "untuned.so"

TUNED, UNTUNED = "schedenv", "tvm-untuned"
_VENDORS = {".onnx": "onnxruntime", ".pt2": "torch"}
_PACKAGES = {"onnxruntime": ("onnx", "onnxruntime"), "torch": ("torch",)}


@dataclass(frozen=True)
class NetworkRequest:
    """What to tune, and how.

    Attributes:
        path: The ONNX file, or what `torch.export.save` wrote.
        seconds: Budget, for the search alone.
        out: The run directory.
        shapes: Extents of inputs that the file leaves open.
        agent: Name of an installed agent; each task has one of its own.
        scheduler: Name of a task scheduler.
        seed: Of everything random.
        resume: Continue the run in `out`.
        peers: Who else runs in the final comparison; left out, with the reason, where one cannot
            run or is wrong.
    """

    path: Path
    seconds: float
    out: Path
    shapes: Shapes = field(default_factory=dict)
    agent: str = DEFAULT_AGENT
    scheduler: str = "gradient"
    seed: int = 0
    resume: bool = False
    peers: tuple[Contender, ...] = ()


class NetworkWatcher:
    """What happens while a network is tuned, for a display; every method may be overridden."""

    def stage(self, name: str) -> None:
        """A stage begins: `import`, `references`, `search`, `finals`, `build` or `confirm`."""

    def slice(self, part: Slice, search: Search) -> None:
        """A task has had another slice of the budget."""


@dataclass(frozen=True)
class NetworkOutcome:
    """How a run went.

    Attributes:
        report: The content of `report.json`; None if the run was interrupted.
        search: What was found.
        interrupted_by: The signal that ended the search; None if the budget did.
    """

    report: dict[str, Any] | None
    search: Search
    interrupted_by: int | None


def tune_network(
    request: NetworkRequest, peaks: Peaks, watcher: NetworkWatcher | None = None
) -> NetworkOutcome:
    """Tune a network and write the run directory.

    Raises:
        InputError: The file, the budget, a name or the directory cannot be used.
        MachineError: The measurement backend failed.
        StoreError: Results cannot be stored.
        NetworkOutputError: The compiled network's outputs are wrong.
    """
    watcher = watcher or NetworkWatcher()
    scheduler = find_scheduler(request.scheduler)
    hardware = hw.detect()
    watcher.stage("import")
    network = prepare(request.path, request.shapes)
    out = run_dir.open_run_dir(request.out, resume=request.resume)
    run = _describe_run(request, network, hardware)
    if request.resume:
        run_dir.check_same_run(out, run)
    run_dir.write_json(out / run_dir.RUN, run)
    watcher.stage("references")
    tasks = [network.task(name) for name in network.entries]
    with (
        RecordStore(out / run_dir.RECORDS, hardware.fingerprint) as store,
        Bench(tasks, hardware, seed=request.seed) as bench,
    ):
        search = Search(
            network, hardware, store, scheduler, request.agent, request.seed, out / SLICES
        )
        search.open(bench, peaks)
        watcher.stage("search")
        search.run(bench, request.seconds, lambda part: watcher.slice(part, search))
        if search.interrupted_by is None:
            watcher.stage("finals")
            confirm_kernels(search, bench)
    run_dir.write_curve(out / run_dir.CURVE, search.curve)
    if search.interrupted_by is not None:
        return NetworkOutcome(None, search, search.interrupted_by)
    watcher.stage("build")
    built = build.build_tuned(network, search.kernels, hardware, out)
    untuned = build.build_untuned(network, hardware, out / UNTUNED_LIBRARY)
    watcher.stage("confirm")
    vendor = vendor_of(request.path)
    comparison = compare(
        [
            Contender(vendor, vendor, request.path.resolve()),
            Contender(TUNED, "tvm", built.library),
            Contender(UNTUNED, "tvm", untuned),
            *(replace(peer, dispensable=True) for peer in request.peers),
        ],
        network.description.inputs,
        hardware,
        reference=vendor,
        seed=request.seed,
    )
    times_s, untimed = _kernel_times(built.library, network, hardware)
    report = describe(request, search, peaks, comparison, built, times_s)
    report["untimed"] = untimed
    run_dir.write_json(out / REPORT, report)
    return NetworkOutcome(report, search, None)


def _kernel_times(
    library: Path, network: Network, hardware: hw.Hardware
) -> tuple[Times, str | None]:
    """What kernels take in their network, or why only their times apart are known."""
    try:
        measured = time_kernels([library], network.description.inputs, hardware)
    except MachineError as error:
        return {}, str(error)
    return by_kernel(measured.times_s[0], network), None


def vendor_of(path: Path) -> str:
    """Who runs a network's file itself: the judge of the outputs, and the peer."""
    return _VENDORS[path.suffix]


def _describe_run(
    request: NetworkRequest, network: Network, hardware: hw.Hardware
) -> dict[str, Any]:
    return {
        "task": str(request.path),
        "task_hash": network.folder.name,
        "agent": request.agent,
        "scheduler": request.scheduler,
        "seconds": request.seconds,
        "seed": request.seed,
        "store": None,
        "shapes": {name: list(extents) for name, extents in request.shapes.items()},
        "hardware": hardware.to_dict(),
        "versions": {
            name: version(name)
            for name in ("schedenv", "apache-tvm", *_PACKAGES[vendor_of(request.path)])
        },
        "git_revision": run_dir.git_revision(),
    }


def describe(
    request: NetworkRequest,
    search: Search,
    peaks: Peaks,
    comparison: Comparison,
    built: build.Built,
    times_s: Times,
) -> dict[str, Any]:
    """The content of `report.json`; where the time goes, the largest part first.

    Args:
        request: What was asked for.
        search: What was found.
        peaks: The machine's.
        comparison: How fast the networks are.
        built: The tuned one.
        times_s: What its kernels take in it, all calls together.
    """
    timings = comparison.timings
    rows = sorted(
        (
            _describe_kernel(name, search, peaks, built, times_s.get(name))
            for name in search.kernels
        ),
        # A kernel of which nothing is known goes first: it is the one to be tuned next.
        key=lambda row: -(math.inf if row["total_us"] is None else row["total_us"]),
    )
    return {
        "network": str(request.path),
        "agent": request.agent,
        "scheduler": request.scheduler,
        "seconds": search.elapsed_s,
        "trials": sum(kernel.trials for kernel in search.kernels.values()),
        "latency_us": {
            name: _describe_range(times.interval(), 1e6) for name, times in timings.items()
        },
        "speedup": {
            name: _describe_range(times.ratio(timings[TUNED]))
            for name, times in timings.items()
            if name != TUNED
        },
        "verified": {
            "against": vendor_of(request.path),
            "error_of_tolerated": comparison.errors,
        },
        "left_out": comparison.left_out,
        "untried": built.untried,
        "sum_of_kernels_us": None
        if any(row["total_us"] is None for row in rows)
        else sum(row["total_us"] for row in rows),
        "roofline_us": sum(float(row["calls"]) * float(row["roofline_us"]) for row in rows),
        "kernels": rows,
        "untouched": [
            entry.name
            for entry in search.network.description.kernels
            if entry.name not in search.kernels
        ],
    }


def _describe_range(ends: Range, unit: float = 1.0) -> dict[str, float]:
    low, estimate, high = (end * unit for end in ends)
    return {"estimate": estimate, "low": low, "high": high}


def _describe_kernel(
    name: str, search: Search, peaks: Peaks, built: build.Built, in_network_s: float | None
) -> dict[str, Any]:
    kernel = search.kernels[name]
    state = kernel.state
    variant = built.variants.get(name)
    tuned_s = None
    if state.best_s:
        tuned_s = state.untuned_s if variant is None else variant.result.estimate_s
    calls = 0 if name in built.joined else state.calls
    total_s = in_network_s
    if total_s is None and (tuned_s is not None or not calls):
        total_s = calls * (tuned_s or 0.0)
    return {
        "kernel": name,
        "calls": calls,
        "untuned_us": state.untuned_s * 1e6 if state.best_s else None,
        "tuned_us": tuned_s * 1e6 if tuned_s is not None else None,
        "estimated_us": state.now_s * 1e6 if state.best_s else None,
        "in_network_us": in_network_s / calls * 1e6 if in_network_s and calls else None,
        "total_us": total_s * 1e6 if total_s is not None else None,
        "packed": variant is not None and variant.packed is not None,
        "roofline_us": roofline(kernel.task, peaks) * 1e6,
        "gflops_per_s": kernel.task.flops / tuned_s / 1e9 if tuned_s is not None else None,
        "trials": kernel.trials,
        "slices": len(state.best_s),
        "point": str(variant.result.point) if variant is not None else None,
        "point_apart": str(built.apart[name].result.point) if variant is not None else None,
    }


def read_report(out: Path) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        OutputDirError: There is none.
    """
    return run_dir.read_json(out / REPORT)
