"""Losses that learn an order, for scores of the points of one task."""

from __future__ import annotations

from typing import Any

_DEEP = 0.5
"""Weight of the plain pairwise part."""

_GAIN = 3.0
"""Steepness of the gain: the best point counts 2^3 - 1, one at half the speed 2^1.5 - 1."""


def ranking_loss(scores: Any, throughputs: Any) -> Any:
    """LambdaRank with a plain pairwise part.

    The pairwise logistic loss of each pair of different throughputs, weighted by how much swapping
    the two would change NDCG (Burges, "From RankNet to LambdaRank to LambdaMART", 2010; the
    framework of Wang et al., "The LambdaLoss Framework", CIKM 2018). That weight all but ignores
    pairs far down the list. Someone who edits a schedule passes there too, so the plain mean over
    pairs is added.

    Args:
        scores: Shape (n,), float32 tensor.
        throughputs: Relevance, best time over the point's; shape (n,), 0 for a failure.

    Returns:
        A scalar tensor; 0 if no two throughputs differ.
    """
    import torch

    count = len(scores)
    with torch.no_grad():
        gains = torch.exp2(_GAIN * throughputs) - 1.0
        ranks = torch.empty(count)
        ranks[torch.argsort(scores, descending=True, stable=True)] = torch.arange(1.0, count + 1)
        discounts = 1.0 / torch.log2(1.0 + ranks)
        ideal = torch.sort(gains, descending=True).values / torch.log2(torch.arange(2.0, count + 2))
        swaps = (gains[:, None] - gains[None, :]).abs() * (
            discounts[:, None] - discounts[None, :]
        ).abs()
        ordered = (throughputs[:, None] > throughputs[None, :]).float()
        pairs = ordered.sum().clamp(min=1.0)
        weights = ordered * (swaps / ideal.sum().clamp(min=1e-6) + _DEEP / pairs)
    losses = torch.nn.functional.softplus(scores[None, :] - scores[:, None])
    return (weights * losses).sum()
