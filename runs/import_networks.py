"""Import networks, count their tasks, verify what is made of them before any tuning.

    python runs/import_networks.py [--networks squeezenet,resnet50] [--out out/imported]

The onnx package's networks get random weights and are judged by ONNX Runtime; `transformers` makes
the others from configurations, with random weights and without a download, and torch is their
judge. What is verified is the prepared graph without schedules: layouts turned, channels widened,
operators fused. bert-base is not small: expect a minute for each call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from light_networks import with_random_weights

from schedenv import hardware as hw
from schedenv.networks.build import build_tuned
from schedenv.networks.compare import Contender, compare
from schedenv.networks.tune import vendor_of
from schedenv.tasks.networks.prepare import prepare

LIGHT = ("squeezenet", "resnet50", "inception_v1", "vgg19")


class _Plain(torch.nn.Module):
    """A model of transformers that takes one tensor and returns one."""

    def __init__(self, model: Any, argument: str, output: str) -> None:
        super().__init__()
        self.model, self.argument, self.output = model, argument, output

    def forward(self, x: Any) -> Any:
        return getattr(self.model(**{self.argument: x}), self.output)


def bert(tokens: int, width: int = 128, layers: int = 2, heads: int = 2) -> tuple[Any, Any]:
    """BERT-tiny unless told otherwise, and an input."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, attn_implementation="eager",
    )  # fmt: skip
    example = torch.zeros(1, tokens, dtype=torch.int64)
    return _Plain(BertModel(config), "input_ids", "last_hidden_state"), example


def vit() -> tuple[Any, Any]:
    """A small ViT: 14 x 14 patches and the class token, 197 in all."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768,
        attn_implementation="eager",
    )  # fmt: skip
    return _Plain(ViTModel(config), "pixel_values", "last_hidden_state"), torch.zeros(
        1, 3, 224, 224
    )


def mobilenet_v2() -> tuple[Any, Any]:
    """MobileNet-V2 at 224 x 224."""
    from transformers import MobileNetV2Config, MobileNetV2Model

    model = MobileNetV2Model(MobileNetV2Config())
    return _Plain(model, "pixel_values", "pooler_output"), torch.zeros(1, 3, 224, 224)


EXPORTED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert-tiny-128": partial(bert, 128),
    "bert-tiny-197": partial(bert, 197),
    "bert-base-128": partial(bert, 128, 768, 12, 12),
    "vit-small": vit,
    "mobilenet-v2": mobilenet_v2,
}


def make(name: str, folder: Path) -> Path:
    """Write the network, with random weights."""
    if name in EXPORTED:
        path = folder / f"{name}.pt2"
        torch.manual_seed(0)
        model, example = EXPORTED[name]()
        torch.export.save(torch.export.export(model.eval(), (example,)), str(path))
        return path
    return with_random_weights(name, folder / f"{name}.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", default=",".join([*LIGHT, *EXPORTED]))
    parser.add_argument("--out", type=Path, default=Path("out/imported"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    hardware = hw.detect()
    print("| network | import s | kernels | tasks | calls of tasks | Gflop | error of tolerated |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in arguments.networks.split(","):
        path = make(name, arguments.out)
        start_s = time.monotonic()
        network = prepare(path)
        import_s = time.monotonic() - start_s
        out = arguments.out / name
        out.mkdir(exist_ok=True)
        library = build_tuned(network, {}, hardware, out)
        judge = vendor_of(path)
        errors, _ = compare(
            [Contender(judge, judge, path.resolve()), Contender("schedenv", "tvm", library)],
            network.description.inputs, hardware, reference=judge, rounds=0,
        )  # fmt: skip
        tasks = list(network.entries.values())
        print(
            f"| {name} | {import_s:.1f} | {len(network.description.kernels)} | {len(tasks)} "
            f"| {sum(task.calls for task in tasks)} "
            f"| {sum(task.calls * task.flops for task in tasks) / 1e9:.2f} "
            f"| {errors['schedenv']:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
