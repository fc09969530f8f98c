"""Import networks, count their tasks, verify what is made of them before any tuning.

    python runs/import_networks.py [--networks squeezenet,resnet50] [--out out/imported]

The onnx package's networks get random weights and are judged by ONNX Runtime; `transformers` makes
the others from configurations (extra `networks`), with random weights and without a download, and
torch is their judge. What is verified is the prepared graph without schedules: layouts turned,
channels widened, operators fused. Without them a large network takes its time: vgg19 a minute a
call.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from network_files import NAMES, network_files

from schedenv import hardware as hw
from schedenv.networks.build import build_tuned
from schedenv.networks.compare import Contender, compare
from schedenv.networks.tune import vendor_of
from schedenv.tasks.networks.prepare import prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default=",".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("out/imported"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    hardware = hw.detect()
    print("| network | import s | kernels | tasks | calls of tasks | Gflop | error of tolerated |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in arguments.networks.split(","):
        path = network_files(name, arguments.out).tuned
        start_s = time.monotonic()
        network = prepare(path)
        import_s = time.monotonic() - start_s
        out = arguments.out / name
        out.mkdir(exist_ok=True)
        library = build_tuned(network, {}, hardware, out).linked.library
        judge = vendor_of(path)
        comparison = compare(
            [Contender(judge, judge, path.resolve()), Contender("schedenv", "tvm", library)],
            network.description.inputs, hardware, reference=judge, turns=0,
        )  # fmt: skip
        tasks = list(network.entries.values())
        print(
            f"| {name} | {import_s:.1f} | {len(network.description.kernels)} | {len(tasks)} "
            f"| {sum(task.calls for task in tasks)} "
            f"| {sum(task.calls * task.flops for task in tasks) / 1e9:.2f} "
            f"| {comparison.errors['schedenv']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
