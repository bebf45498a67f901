"""Losses on intensities that are about 1 where the image is bright."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_C1, _C2 = 0.01**2, 0.03**2


def structural_dissimilarity(a: torch.Tensor, b: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Return 1 - SSIM with a uniform cubic window, averaged (Wang et al. 2004).

    Parameters
    ----------
    a, b : Tensor, shape (B, T, X, Y, Z)
    window : int
        Edge of the window in voxels.
    """
    mean_a, mean_b = F.avg_pool3d(a, window, 2), F.avg_pool3d(b, window, 2)
    var_a = F.avg_pool3d(a * a, window, 2) - mean_a**2
    var_b = F.avg_pool3d(b * b, window, 2) - mean_b**2
    cov = F.avg_pool3d(a * b, window, 2) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * cov + _C2) / (var_a + var_b + _C2)
    return 1 - (luminance * structure).mean()


def gradient_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference of the forward differences along the three axes."""
    delta = a - b
    return sum(delta.diff(dim=axis).abs().mean() for axis in (-3, -2, -1)) / 3


def tail_difference(predicted, target, mask, share: float = 0.04) -> torch.Tensor:
    """Return how far the brightest voxels are from those of the target.

    Compares sorted values, not places. Regression shrinks towards the mean what it is unsure of,
    most of all small bright structures; an image is then too flat, and scaling it by a high
    percentile, as viewers and metrics do, shifts all of it. The share is small because a larger
    one makes the network guess where bright structures are, which costs more than it gains.

    Parameters
    ----------
    predicted, target : Tensor, shape (B, T, X, Y, Z)
    mask : Tensor, shape (B, 1, X, Y, Z)
    share : float
        Part of the voxels inside the mask that counts as the tail.
    """
    inside = mask[0, 0] > 0
    count = max(int(share * int(inside.sum())), 1)
    ours, theirs = (image[0, :, inside].topk(count, dim=1).values for image in (predicted, target))
    return (ours - theirs).abs().mean()


def relative_difference(predicted, target, mask, share: float = 0.01) -> torch.Tensor:
    """Return the squared error of images that are each divided by their brightest voxels.

    That is how images are looked at and compared: an image whose brightest voxels are too dark is
    too bright everywhere else.

    Parameters
    ----------
    predicted, target : Tensor, shape (B, T, X, Y, Z)
    mask : Tensor, shape (B, 1, X, Y, Z)
    share : float
        Part of the voxels inside the mask whose mean an image is divided by.
    """
    inside = mask[0, 0] > 0
    count = max(int(share * int(inside.sum())), 1)
    scaled = []
    for image in (predicted, target):
        values = image[0, :, inside]
        bright = values.topk(count, dim=1).values.mean(dim=1, keepdim=True)
        scaled.append(values / bright.clamp_min(0.1))
    return F.huber_loss(*scaled, delta=0.5)


def synthesis_loss(predicted, target, mask) -> torch.Tensor:
    """Return the training loss: absolute and squared error, SSIM, edges and tails.

    Parameters
    ----------
    predicted, target : Tensor, shape (B, T, X, Y, Z)
        The target is 0 outside the mask.
    mask : Tensor, shape (B, 1, X, Y, Z)
    """
    predicted = predicted * mask
    share = mask.mean().clamp_min(0.05)
    # Squared where errors are small, which is what PSNR measures; linear beyond half the range.
    squared = F.huber_loss(predicted, target, delta=0.5)
    pointwise = ((predicted - target).abs().mean() + 6 * squared) / share
    return (
        pointwise
        + 0.1 * structural_dissimilarity(predicted, target)
        + 0.3 * gradient_difference(predicted, target) / share
        + 0.3 * tail_difference(predicted, target, mask)
        + 8 * relative_difference(predicted, target, mask)
    )
