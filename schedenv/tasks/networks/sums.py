"""Sums of several tensors as chains of additions.

TVM's front end stacks the terms of a `Sum` and reduces the stack: a copy of all of them where one
addition would have been fused with the convolution before it, and the stack's fifth axis has no
place in a layout with channels last.
"""

from __future__ import annotations

from typing import Any


def chain_sums(model: Any) -> Any:
    """Replace every `Sum` of an ONNX model by `Add`s, in place; one of one term by `Identity`."""
    from onnx import helper

    nodes: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "Sum":
            copy = type(node)()
            copy.CopyFrom(node)
            nodes.append(copy)
            continue
        (result,) = node.output
        total, *terms = node.input
        if not terms:
            nodes.append(helper.make_node("Identity", [total], [result], name=node.name))
        for number, term in enumerate(terms, 1):
            partial = result if number == len(terms) else f"{result}_of_{number + 1}_terms"
            nodes.append(helper.make_node("Add", [total, term], [partial]))
            total = partial
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
