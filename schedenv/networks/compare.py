"""Is the compiled network right, and how fast is it? Against others, each in its own processes.

The processes of a turn are timed one after the other in random order, with pauses: ONNX Runtime's
threads spin for a while after a call, and a library timed beside them looks several times slower.
Each turn starts all of them anew; `schedenv.networks.timing` says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.errors import MachineError, NetworkOutputError
from schedenv.measure.verify import Array, deviation
from schedenv.networks.timing import Samples, TurnTimes
from schedenv.tasks.networks.network import Port

TOLERATED = 2e-4
"""Deviation of an output, relative to the largest expected magnitude: rounding through the depth
of a network, at float32's 6e-8 a step."""

INPUT_SETS = 2
TURNS = 9
ROUNDS = 4
_PAUSE_S = 0.05
_BURST_S = 0.05

_SLOW_S = 0.5
_LONG_S = 12.0
_FEWEST_CALLS = 2
"""A network that takes `_SLOW_S` or more, as untuned ones do, has one process. It needs no warm-up
beside the calls that verified it, and is timed for about `_LONG_S`, yet at least so often."""


@dataclass(frozen=True)
class Contender:
    """One way to run a network.

    Attributes:
        name: For people.
        kind: `tvm`, a shared library for TVM's virtual machine, `onnxruntime` or `torch`.
        path: The library, the ONNX file, or what `torch.export.save` wrote.
        dispensable: Whether the comparison goes on without it where it cannot run, or is wrong.
    """

    name: str
    kind: str
    path: Path
    dispensable: bool = False


@dataclass(frozen=True)
class Comparison:
    """How contenders did.

    Attributes:
        errors: The largest deviation of each one's outputs, in units of the tolerated one.
        timings: How long a call of each takes; empty if nothing was timed.
        left_out: Why a dispensable contender was not timed.
    """

    errors: dict[str, float]
    timings: dict[str, TurnTimes]
    left_out: dict[str, str]


def random_inputs(inputs: Sequence[Port], seed: int) -> list[Array]:
    """Standard normal floats, and integers that are valid indices of any table of two rows."""
    rng = np.random.default_rng(seed)
    return [
        rng.standard_normal(port.shape).astype(port.dtype)
        if np.dtype(port.dtype).kind == "f"
        else rng.integers(0, 2, port.shape).astype(port.dtype)
        for port in inputs
    ]


class Server:
    """A contender in a process of its own, with all cores; see `schedenv.networks.server`."""

    def __init__(self, contender: Contender, data_dir: Path, hardware: hw.Hardware) -> None:
        self.name = contender.name
        request = {
            "kind": contender.kind,
            "path": str(contender.path),
            "data_dir": str(data_dir),
            "outputs": contender.name,
            "threads": hardware.cores,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "schedenv.networks.server", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **hw.worker_environment(hardware)},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            _, said = self._process.communicate()
            lines = [line for line in said.splitlines() if line.strip()]
            raise MachineError(
                f"{contender.name} cannot run {contender.path}: "
                f"{lines[-1] if lines else 'no message'}"
            )

    def sample_s(self, calls: int, warm_up: int) -> float:
        """Seconds a call, mean of `calls`, after `warm_up` calls that are not counted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{calls} {warm_up}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise MachineError(f"{self.name} died while it was timed; run again")
        return float(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def compare(
    contenders: Sequence[Contender],
    inputs: Sequence[Port],
    hardware: hw.Hardware,
    *,
    reference: str,
    seed: int = 0,
    turns: int | None = None,
) -> Comparison:
    """Verify contenders against one of them, and time them in turn.

    Args:
        contenders: At least the reference.
        inputs: The network's.
        hardware: Whose cores they use.
        reference: The name of the contender whose outputs are right.
        seed: Of the inputs and of the order.
        turns: Processes of each, which are timed `ROUNDS` times; one of a contender whose calls
            take half a second or more. With 0, nothing is timed; None stands for `TURNS`.

    Raises:
        NetworkOutputError: The outputs of an indispensable contender are wrong.
        MachineError: One cannot be run.
    """
    turns = TURNS if turns is None else turns
    with tempfile.TemporaryDirectory(prefix="schedenv-network-") as scratch:
        data_dir = Path(scratch)
        for number in range(INPUT_SETS):
            arrays = random_inputs(inputs, seed * INPUT_SETS + number)
            np.savez(data_dir / f"inputs-{number}.npz", *arrays)
        (data_dir / "names.json").write_text(json.dumps([port.name for port in inputs]))
        race = _Race(contenders, reference, data_dir, hardware, np.random.default_rng(seed))
        for _ in range(max(1, turns)):
            race.turn(timed=turns > 0)
    fit = [one.name for one in contenders if one.name in race.errors]
    return Comparison(
        {name: race.errors[name] for name in fit},
        {name: TurnTimes(tuple(race.samples_s[name])) for name in fit} if turns else {},
        race.left_out,
    )


class _Race:
    """A comparison under way; the attributes that are not private are those of `Comparison`."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        reference: str,
        data_dir: Path,
        hardware: hw.Hardware,
        rng: np.random.Generator,
    ) -> None:
        self.errors: dict[str, float] = {}
        self.samples_s: dict[str, list[Samples]] = {}
        self.left_out: dict[str, str] = {}
        self._waiting = list(contenders)
        self._reference = reference
        self._data_dir = data_dir
        self._hardware = hardware
        self._rng = rng

    def turn(self, *, timed: bool) -> None:
        """A new process of everyone: its outputs are verified, then it is timed."""
        servers: list[Server] = []
        try:
            # One after the other: starting one beside a running one would disturb its warm-up.
            for contender in self._starting_order():
                try:
                    servers.append(Server(contender, self._data_dir, self._hardware))
                    error = _error(self._data_dir, contender.name, self._reference)
                except (NetworkOutputError, MachineError) as problem:
                    if not contender.dispensable:
                        raise
                    self._leave_out(contender.name, str(problem))
                else:
                    self.errors[contender.name] = max(error, self.errors.get(contender.name, 0.0))
            if timed:
                self._time([server for server in servers if server.name not in self.left_out])
        finally:
            for server in servers:
                server.close()

    def _starting_order(self) -> list[Contender]:
        """Random, as who starts first may be slower; the judge before all that it has to judge."""
        order = [self._waiting[index] for index in self._rng.permutation(len(self._waiting))]
        judged = self._reference in self.errors
        return sorted(order, key=lambda one: not judged and one.name != self._reference)

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        self.errors.pop(name, None)
        self.samples_s.pop(name, None)
        self._wait_no_more({name})

    def _time(self, servers: Sequence[Server]) -> None:
        firsts_s = {server.name: server.sample_s(1, 0) for server in servers}
        slow = {name for name, first_s in firsts_s.items() if first_s >= _SLOW_S}
        calls = {name: max(1, min(200, int(_BURST_S / s))) for name, s in firsts_s.items()}
        taken_s: dict[str, list[float]] = {server.name: [] for server in servers}
        for name in slow:
            taken_s[name].append(firsts_s[name])
        for _ in range(ROUNDS):
            for index in self._rng.permutation(len(servers)):
                server = servers[index]
                if server.name in slow and _is_long(taken_s[server.name]):
                    continue
                count = calls[server.name]
                time.sleep(_PAUSE_S)
                warm_up = 0 if server.name in slow else count
                taken_s[server.name].append(server.sample_s(count, warm_up))
        for name, taken in taken_s.items():
            self.samples_s.setdefault(name, []).append(tuple(taken))
        self._wait_no_more(slow)

    def _wait_no_more(self, names: Collection[str]) -> None:
        self._waiting = [one for one in self._waiting if one.name not in names]


def _is_long(taken_s: Sequence[float]) -> bool:
    return len(taken_s) >= _FEWEST_CALLS and sum(taken_s) >= _LONG_S


def _error(data_dir: Path, name: str, reference: str) -> float:
    worst = 0.0
    for number in range(INPUT_SETS):
        expected, actual = (
            [arrays[key] for key in sorted(arrays.files)]
            for arrays in (np.load(data_dir / f"{who}-{number}.npz") for who in (reference, name))
        )
        if [array.shape for array in expected] != [array.shape for array in actual]:
            raise NetworkOutputError(
                f"{name} returns outputs of other shapes than {reference}; nothing was kept of it"
            )
        worst = max(worst, deviation(actual, expected, TOLERATED))
    if worst > 1:
        raise NetworkOutputError(
            f"the outputs of {name} deviate {worst:.3g} times more from those of {reference} than "
            f"tolerated ({TOLERATED:g} of the largest magnitude); the records are kept, the "
            "compiled network is not to be used"
        )
    return worst
