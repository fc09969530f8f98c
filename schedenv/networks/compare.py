"""Is the compiled network right, and how fast is it? Against others, each in its own process.

The processes take turns in random order, with pauses: ONNX Runtime's threads spin for a while
after a call, and a library timed beside them looks several times slower.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.errors import MachineError, NetworkOutputError
from schedenv.measure.verify import Array, deviation
from schedenv.tasks.networks.network import Port
from schedenv.tuning.finalists import Timing

TOLERATED = 2e-4
"""Deviation of an output, relative to the largest expected magnitude: rounding through the depth
of a network, at float32's 6e-8 a step."""

INPUT_SETS = 2
ROUNDS = 24
_PAUSE_S = 0.05
_BURST_S = 0.05

_SLOW_S = 0.5
_LONG_S = 12.0
_FEWEST_TURNS = 2
"""A network that takes `_SLOW_S` or more, as untuned ones do, needs no warm-up beside the calls
that verified it, and is timed for about `_LONG_S` in all, yet at least so often."""


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
    timings: dict[str, Timing]
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
    rounds: int = ROUNDS,
) -> Comparison:
    """Verify contenders against one of them, and time them in turn.

    Args:
        contenders: At least the reference.
        inputs: The network's.
        hardware: Whose cores they use.
        reference: The name of the contender whose outputs are right.
        seed: Of the inputs and of the order.
        rounds: Samples of each, fewer of one whose calls take half a second or more; with 0,
            nothing is timed.

    Raises:
        NetworkOutputError: The outputs of an indispensable contender are wrong.
        MachineError: One cannot be run.
    """
    servers: list[Server] = []
    errors: dict[str, float] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="schedenv-network-") as scratch:
        data_dir = Path(scratch)
        for number in range(INPUT_SETS):
            arrays = random_inputs(inputs, seed * INPUT_SETS + number)
            np.savez(data_dir / f"inputs-{number}.npz", *arrays)
        (data_dir / "names.json").write_text(json.dumps([port.name for port in inputs]))
        try:
            # One after the other: starting one beside a running one would disturb its warm-up.
            # The reference first, for it judges the others.
            for contender in sorted(contenders, key=lambda one: one.name != reference):
                try:
                    servers.append(Server(contender, data_dir, hardware))
                    errors[contender.name] = _error(data_dir, contender.name, reference)
                except (NetworkOutputError, MachineError) as error:
                    if not contender.dispensable:
                        raise
                    left_out[contender.name] = str(error)
            fit = [server for server in servers if server.name in errors]
            return Comparison(errors, _time(fit, rounds, seed) if rounds else {}, left_out)
        finally:
            for server in servers:
                server.close()


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


def _time(servers: Sequence[Server], rounds: int, seed: int) -> dict[str, Timing]:
    firsts_s = {server.name: server.sample_s(1, 0) for server in servers}
    slow = {name for name, first_s in firsts_s.items() if first_s >= _SLOW_S}
    calls: Mapping[str, int] = {
        name: max(1, min(200, int(_BURST_S / first_s))) for name, first_s in firsts_s.items()
    }
    turns: Mapping[str, int] = {
        name: min(rounds, max(_FEWEST_TURNS, int(_LONG_S / first_s))) if name in slow else rounds
        for name, first_s in firsts_s.items()
    }
    samples: dict[str, list[float]] = {
        name: [first_s] if name in slow else [] for name, first_s in firsts_s.items()
    }
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        for index in rng.permutation(len(servers)):
            server = servers[index]
            count = calls[server.name]
            if len(samples[server.name]) >= turns[server.name]:
                continue
            time.sleep(_PAUSE_S)
            samples[server.name].append(server.sample_s(count, 0 if server.name in slow else count))
    return {name: Timing.of(taken, seed) for name, taken in samples.items()}
