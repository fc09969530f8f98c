"""Networks of `transformers` as exported torch programs and as ONNX files, with random weights.

They are made from configurations: nothing is downloaded. Needs the extra `networks`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch


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
    """MobileNet-V2 at 224 x 224 with its 1000 classes; it pads as TensorFlow does."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    model = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1000))
    return _Plain(model, "pixel_values", "logits"), torch.zeros(1, 3, 224, 224)


EXPORTED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "bert-tiny-128": partial(bert, 128),
    "bert-tiny-197": partial(bert, 197),
    "bert-base-128": partial(bert, 128, 768, 12, 12),
    "vit-small": vit,
    "mobilenet-v2": mobilenet_v2,
}


def export(name: str, path: Path) -> Path:
    """Write a network as an exported program, as `torch.export.save` does."""
    torch.manual_seed(0)
    model, example = EXPORTED[name]()
    torch.export.save(torch.export.export(model.eval(), (example,)), str(path))
    return path


def as_onnx(exported: Path, path: Path) -> Path:
    """Write an exported program as ONNX, weights included, by torch's own exporter."""
    program = torch.export.load(str(exported))
    torch.onnx.export(
        program, f=str(path), input_names=["x"], dynamo=True, external_data=False, verbose=False
    )
    return path
