"""Tune a network from its file to a verified library: the order of things, and the report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from schedenv import hardware as hw
from schedenv.calibration import Peaks
from schedenv.errors import MachineError
from schedenv.measure.shared import Bench
from schedenv.networks import build, vendor
from schedenv.networks.compare import Contender, compare
from schedenv.networks.finals import confirm_kernels
from schedenv.networks.kernel_times import by_kernel, time_kernels
from schedenv.networks.report import REPORT, TUNED, UNTUNED, KernelTimes, describe
from schedenv.networks.scheduler import find_scheduler
from schedenv.networks.slices import Search, Slice
from schedenv.records import RecordStore
from schedenv.tasks.networks.network import Network
from schedenv.tasks.networks.prepare import Shapes, prepare
from schedenv.tuning import run_dir

DEFAULT_AGENT = "register-tiles"

SLICES = "slices.jsonl"
UNTUNED_LIBRARY = "untuned.so"

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
    judge = vendor_of(request.path)
    comparison = compare(
        [
            Contender(judge, judge, request.path.resolve()),
            Contender(TUNED, "tvm", built.linked.library),
            Contender(UNTUNED, "tvm", untuned),
            *(replace(peer, dispensable=True) for peer in request.peers),
        ],
        network.description.inputs,
        hardware,
        reference=judge,
        seed=request.seed,
    )
    times = _kernel_times(request, built.linked.library, network, hardware)
    report = {
        "network": str(request.path),
        "agent": request.agent,
        "scheduler": request.scheduler,
        **describe(search, peaks, comparison, judge, built, times),
    }
    run_dir.write_json(out / REPORT, report)
    return NetworkOutcome(report, search, None)


def _kernel_times(
    request: NetworkRequest, library: Path, network: Network, hardware: hw.Hardware
) -> KernelTimes:
    """What kernels take in their network, and the vendor's; or why that is not known."""
    inputs = network.description.inputs
    times = KernelTimes()
    try:
        measured = time_kernels([library], inputs, hardware)
        times.in_network_s = by_kernel(measured.times_s[0], network)
    except MachineError as error:
        times.untimed = str(error)
    if request.path.suffix == ".onnx":
        try:
            profile = vendor.profile(request.path.resolve(), inputs, hardware, request.seed)
            times.vendor_us = vendor.by_kernel(request.path, network, profile)
        except MachineError as error:
            times.unprofiled = str(error)
    return times


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
