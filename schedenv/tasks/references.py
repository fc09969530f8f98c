"""What the operators compute, in float64 numpy and independent of TVM.

Each function takes the inputs as float64 arrays in the order of the TVM program's parameters and
returns the list of outputs. Layouts are channels-last: inputs (batch, *spatial, channels), weights
(*kernel, channels in, channels out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from schedenv.tasks.task import Array

# Elements of the patch matrix that one matrix product of a convolution works on: 32 MiB.
_PATCH_ELEMENTS = 2**22


def matmul(inputs: Sequence[Array]) -> list[Array]:
    """Batched matrix product: (B, N, K) and (B, K, M) to (B, N, M)."""
    left, right = inputs
    return [left @ right]


def transposed_matmul(inputs: Sequence[Array]) -> list[Array]:
    """Attention scores: (B, L, H, D) and (B, L, H, D) to (B, H, L, L)."""
    query, value = inputs
    return [query.transpose(0, 2, 1, 3) @ value.transpose(0, 2, 3, 1)]


def norm(inputs: Sequence[Array]) -> list[Array]:
    """Frobenius norm of each matrix: (B, M, N) to (B,)."""
    (matrices,) = inputs
    flat = matrices.reshape(len(matrices), -1)
    return [np.sqrt(np.einsum("bi,bi->b", flat, flat))]


def softmax(inputs: Sequence[Array]) -> list[Array]:
    """Softmax of each row: (M, N) to (M, N)."""
    (rows,) = inputs
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return [powers / powers.sum(axis=1, keepdims=True)]


def convolution(
    inputs: Sequence[Array], *, stride: int, padding: int, dilation: int = 1, groups: int = 1
) -> list[Array]:
    """Convolution over any number of spatial axes, with zero padding on both sides.

    Args:
        inputs: Data (N, *spatial, CI) and weights (*kernel, CI // groups, CO).
        stride: Step between windows, the same on every axis.
        padding: Zeros added on each side of every axis.
        dilation: Step between the elements of a window.
        groups: Channel groups that do not mix.

    Returns:
        One array (N, *spatial out, CO).
    """
    data, weight = inputs
    padded = _pad(data, padding)
    if groups == 1:
        return [_convolve(padded, weight, stride, dilation)]
    parts = zip(np.split(padded, groups, axis=-1), np.split(weight, groups, axis=-1), strict=True)
    return [np.concatenate([_convolve(*part, stride, dilation) for part in parts], axis=-1)]


def depthwise_convolution(
    inputs: Sequence[Array], *, stride: int, padding: int, dilation: int = 1
) -> list[Array]:
    """Convolution of each channel by itself: (N, H, W, C) and (1, K, K, C) to (N, H', W', C)."""
    data, weight = inputs
    padded = _pad(data, padding)
    windows = _windows(padded, weight.shape[1:-1], stride, dilation)
    output = np.zeros((*windows.shape[: data.ndim - 1], data.shape[-1]))
    for offset in np.ndindex(*weight.shape[1:-1]):
        output += windows[(..., *offset, slice(None))] * weight[(0, *offset)]
    return [output]


def transposed_convolution(inputs: Sequence[Array], *, stride: int, padding: int) -> list[Array]:
    """The adjoint of a convolution: each input element adds a scaled kernel to the output.

    Args:
        inputs: Data (N, *spatial, CI) and weights (*kernel, CI, CO).
        stride: Step in the output between neighbouring input elements.
        padding: Elements cut off each side of every output axis.

    Returns:
        One array (N, *[(extent - 1) * stride - 2 * padding + kernel], CO).
    """
    data, weight = inputs
    spatial, kernel = data.shape[1:-1], weight.shape[:-2]
    full = [(extent - 1) * stride + size for extent, size in zip(spatial, kernel, strict=True)]
    output = np.zeros((data.shape[0], *full, weight.shape[-1]))
    for offset in np.ndindex(*kernel):
        place = tuple(
            slice(start, start + (extent - 1) * stride + 1, stride)
            for start, extent in zip(offset, spatial, strict=True)
        )
        output[(slice(None), *place)] += data @ weight[offset]
    crop = tuple(slice(padding, extent - padding) for extent in full)
    return [output[(slice(None), *crop)]]


def capsule_convolution(inputs: Sequence[Array], *, stride: int, padding: int) -> list[Array]:
    """Convolution whose elements are matrices, multiplied as matrices.

    Args:
        inputs: Data (N, H, W, s, s, CI) and weights (K, K, s, s, CI, CO), `s` the capsule size.
        stride: Step between windows.
        padding: Zeros added on each side of both spatial axes.

    Returns:
        One array (N, H', W', s, s, CO).
    """
    data, weight = inputs
    batch, height, width, rows, inner, channels = data.shape
    kernel_h, kernel_w, _, columns, _, out_channels = weight.shape
    # A capsule's rows never mix: they are a batch. Its columns are summed over: channels.
    flat_data = np.moveaxis(data, 3, 1).reshape(batch * rows, height, width, inner * channels)
    flat_weight = weight.transpose(0, 1, 2, 4, 3, 5).reshape(
        kernel_h, kernel_w, inner * channels, columns * out_channels
    )
    (flat,) = convolution((flat_data, flat_weight), stride=stride, padding=padding)
    output = flat.reshape(batch, rows, *flat.shape[1:3], columns, out_channels)
    return [np.moveaxis(output, 1, 3)]


def convolution_bn_relu(
    inputs: Sequence[Array], *, stride: int, padding: int, dilation: int = 1
) -> list[Array]:
    """Convolution, bias, batch norm as scale and offset, then ReLU.

    Inputs are data, weights, bias (CO,), offset (CO,) and scale (CO,), in this order.
    """
    data, weight, bias, offset, scale = inputs
    (output,) = convolution((data, weight), stride=stride, padding=padding, dilation=dilation)
    return [np.maximum((output + bias) * scale + offset, 0.0)]


def _pad(data: Array, padding: int) -> Array:
    if not padding:
        return data
    return np.pad(data, [(0, 0), *[(padding, padding)] * (data.ndim - 2), (0, 0)])


def _windows(padded: Array, kernel: tuple[int, ...], stride: int, dilation: int) -> Array:
    """A view (N, *spatial out, *kernel, C) of (N, *spatial, C): nothing is copied."""
    reach = tuple((size - 1) * dilation + 1 for size in kernel)
    axes = tuple(range(1, 1 + len(kernel)))
    windows = sliding_window_view(padded, reach, axes)
    step = (slice(None, None, stride),) * len(kernel)
    inner = (slice(None, None, dilation),) * len(kernel)
    # Channels last: a patch is then gathered in long contiguous runs, several times faster.
    return np.moveaxis(windows[(slice(None), *step, slice(None), *inner)], 1 + len(kernel), -1)


def _convolve(padded: Array, weight: Array, stride: int, dilation: int) -> Array:
    """One group: patches, gathered a bounded number at a time, times the weights as a matrix."""
    kernel = weight.shape[:-2]
    rank = len(kernel)
    windows = _windows(padded, kernel, stride, dilation)
    positions = windows.shape[: 1 + rank]
    patch = math.prod(windows.shape[1 + rank :])
    matrix = weight.reshape(patch, -1)
    output = np.empty((*positions, weight.shape[-1]))
    looped = next(
        (axis for axis in range(rank) if math.prod(positions[axis:]) * patch <= _PATCH_ELEMENTS),
        rank,
    )
    for index in np.ndindex(*positions[:looped]):
        patches = windows[index].reshape(-1, patch)
        output[index] = (patches @ matrix).reshape(output[index].shape)
    return output
