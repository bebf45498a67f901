"""What happens to a source image on its way: slices, motion, noise, bias field, contrast drift."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

#: Brightest value of a training image; enhancing vessels would reach three times that.
BRIGHTEST = 2.0


def blur(image: np.ndarray, sigma_voxels: float) -> np.ndarray:
    """Blur with a Gaussian, the point spread of a voxel."""
    return ndimage.gaussian_filter(image, sigma_voxels) if sigma_voxels > 0 else image


def thick_slices(
    rng: np.random.Generator, image: np.ndarray, thickness: int, axis: int, gap: int = 0
) -> np.ndarray:
    """Average voxels into slices along an axis and interpolate linearly back.

    The first slice begins at a random voxel, so that slices lie anywhere.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : ndarray, shape (X, Y, Z)
    thickness : int
        Distance of the slices in voxels. A shorter image is a single slice.
    axis : int
    gap : int
        How many of these voxels no slice sees; each sees one at least.
    """
    thickness = min(thickness, image.shape[axis])
    gap = min(gap, thickness - 1)
    start = int(rng.integers(thickness))
    padded = np.roll(image, -start, axis=axis)
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(padded, axis, 0)))[None, None]
    size = tensor.shape[2]
    n_slices = size // thickness
    tensor = tensor[:, :, : n_slices * thickness]
    slices = tensor.unfold(2, thickness, thickness)[..., : thickness - gap].mean(dim=-1)
    back = F.interpolate(slices, size=(n_slices * thickness, *tensor.shape[3:]), mode='trilinear')
    back = F.pad(back, (0, 0, 0, 0, 0, size - n_slices * thickness), mode='replicate')
    return np.roll(np.moveaxis(back[0, 0].numpy(), 0, axis), start, axis=axis)


def motion_ghosts(
    rng: np.random.Generator, image: np.ndarray, axis: int, strength: float
) -> np.ndarray:
    """Add the ghosts of a head that moves to and fro along the phase-encoding axis.

    Parameters
    ----------
    rng : numpy.random.Generator
    image : ndarray of float32, shape (X, Y, Z)
    axis : int
        Phase encoding.
    strength : float
        Amplitude of the motion in voxels; the ghosts' brightness grows with it.

    Returns
    -------
    ndarray of float32
    """
    n = image.shape[axis]
    lines = np.fft.fftfreq(n)
    shift = strength * np.sin(2 * np.pi * (rng.uniform(0.05, 0.45) * np.arange(n) + rng.random()))
    phase = np.exp(-2j * np.pi * lines * np.fft.ifftshift(shift))
    shape = [1, 1, 1]
    shape[axis] = n
    moved = np.fft.ifft(np.fft.fft(image, axis=axis) * phase.reshape(shape), axis=axis)
    return np.abs(moved).astype(np.float32)


def bias_field(rng: np.random.Generator, shape, strength: float) -> np.ndarray:
    """Draw a smooth multiplicative field with a log standard deviation of ``strength``."""
    knots = torch.from_numpy(rng.normal(0, strength, (1, 1, 3, 3, 3)).astype('f4'))
    field = F.interpolate(knots, size=tuple(shape), mode='trilinear', align_corners=True)
    return np.exp(field[0, 0].numpy())


def corrupt_source(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, *, strength: float = 1.0
) -> np.ndarray:
    """Degrade an image the way acquired scans are, after bias correction and brain extraction.

    Parameters
    ----------
    image : ndarray of float32, shape (X, Y, Z)
        About 1 where it is bright.
    mask : ndarray of bool, shape (X, Y, Z)
    strength : float
        Scales the motion and with it its ghosts, the bias field, the drifts of contrast and
        brightness, and the noise; not how thick slices are, nor how often each happens.
    """
    if rng.random() < 0.5:
        thickness = int(rng.integers(2, 7))
        gap = int(rng.integers(0, 2)) if thickness > 3 else 0
        image = thick_slices(rng, image, thickness, int(rng.integers(3)), gap)
    if rng.random() < 0.15:
        image = motion_ghosts(rng, image, int(rng.integers(3)), strength * rng.uniform(0.2, 1.2))
    if rng.random() < 0.5:
        image = image * bias_field(rng, image.shape, 0.12 * strength)
    peak = max(float(image.max()), 1e-6)
    image = peak * (np.maximum(image, 0) / peak) ** np.exp(rng.normal(0, 0.1 * strength))
    if rng.random() < 0.7:
        sigma = strength * rng.uniform(0.005, 0.05)
        real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
        imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
        image = np.hypot(real, imaginary)
    image = np.minimum(image * np.exp(rng.normal(0, 0.06 * strength)), BRIGHTEST)
    return np.where(mask, image, 0).astype(np.float32)
