"""Slices of brains as pictures: where to cut, how to window, how to lay side by side."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np

from ..grids import Grid, resample

PLANES = ('axial', 'coronal', 'sagittal')

#: For each plane: the world axis across it, and those that run right and up in the picture.
_AXES = {'axial': (2, 0, 1), 'coronal': (1, 0, 2), 'sagittal': (0, 1, 2)}

#: Cuts of each plane. Heads are longer than wide, so sagittal rows hold one cut less; being even
#: in number, none of them falls between the hemispheres.
_N_CUTS = {'axial': 7, 'coronal': 7, 'sagittal': 6}

GAP = 2


@dataclass(frozen=True)
class View:
    """A box of world space (RAS+, mm) and the cuts through it; shared by all rows of a figure.

    Attributes
    ----------
    low, high : ndarray, shape (3,)
        Corners of the box in mm.
    cuts : dict of str to ndarray
        Positions of the cuts of each plane along the axis across it, in mm.
    step : float
        Size of a pixel in mm.
    """

    low: np.ndarray
    high: np.ndarray
    cuts: dict[str, np.ndarray]
    step: float

    @classmethod
    def around(
        cls, foreground: nb.spatialimages.SpatialImage, *, margin: float = 8.0, step: float = 0.8
    ) -> View:
        """Look at the part of space where an image is not zero, and a margin around it.

        Parameters
        ----------
        foreground : SpatialImage
            Mask or brain-only image. Where it is zero everywhere the whole image is looked at.
        margin : float
            mm.
        step : float
            Size of a pixel in mm.
        """
        inside = np.asarray(foreground.dataobj) > 0
        extents = [_extent(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        first, last = (np.array(ends) for ends in zip(*extents, strict=True))
        corners = np.array(np.meshgrid(*zip(first - 0.5, last + 0.5, strict=True))).reshape(3, -1)
        world = nb.affines.apply_affine(foreground.affine, corners.T)
        low, high = world.min(axis=0), world.max(axis=0)
        cuts = {}
        for plane, (across, _right, _up) in _AXES.items():
            # The outermost slices show next to nothing of a brain.
            fractions = np.linspace(0.15, 0.87, _N_CUTS[plane])
            if plane == 'sagittal':
                fractions = np.linspace(0.15, 0.85, _N_CUTS[plane])
            cuts[plane] = low[across] + (high - low)[across] * fractions
        return cls(low - margin, high + margin, cuts, step)

    def grid(self, plane: str, cut: float) -> Grid:
        """Return the pixels of a cut as a grid of one slice, first axis right, second axis up."""
        across, right, up = _AXES[plane]
        shape = np.ceil((self.high - self.low) / self.step).astype(int)
        affine = np.zeros((4, 4))
        affine[right, 0] = affine[up, 1] = affine[across, 2] = self.step
        affine[:3, 3] = self.low
        affine[across, 3] = cut
        affine[3, 3] = 1
        return Grid((int(shape[right]), int(shape[up]), 1), affine)

    def sample(self, img: nb.spatialimages.SpatialImage) -> dict[str, np.ndarray]:
        """Sample an image on all cuts.

        Returns
        -------
        dict of str to ndarray of float32, shape (cuts, height, width)
            For each plane; row 0 is on top; 0 outside the image.
        """
        return {
            plane: np.stack([self._slice(img, plane, cut) for cut in cuts])
            for plane, cuts in self.cuts.items()
        }

    def _slice(self, img, plane: str, cut: float) -> np.ndarray:
        return resample(img, self.grid(plane, cut), antialias=False)[:, ::-1, 0].T


def _extent(occupied: np.ndarray) -> tuple[int, int]:
    """Return the first and last true position; the whole length where there is none."""
    positions = np.flatnonzero(occupied)
    return (positions[0], positions[-1]) if len(positions) else (0, len(occupied) - 1)


def robust_range(values: np.ndarray, percentiles=(1.0, 99.7)) -> tuple[float, float]:
    """Return percentiles of the values that are not zero; (0, 1) where there are none."""
    values = values[values != 0]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    return (low, high) if high > low else (low, low + 1.0)


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` and below to 0, ``high`` and above to 255."""
    scale = 255 / max(high - low, np.finfo(np.float32).tiny)
    return np.clip((values - low) * scale, 0, 255).astype(np.uint8)


def side_by_side(tiles: np.ndarray) -> np.ndarray:
    """Lay tiles, shape (n, height, width[, channels]), in a row with black gaps between them."""
    spacing = [(0, 0), (0, 0), (0, GAP)] + [(0, 0)] * (tiles.ndim - 3)
    padded = np.pad(tiles, spacing)
    return np.concatenate(list(padded), axis=1)[:, :-GAP]


def contour_path(tiles: np.ndarray) -> str:
    """Trace the outlines of masks that are laid side by side as an SVG path.

    Parameters
    ----------
    tiles : ndarray, shape (n, height, width)
        Values from 0 to 1; the outline is where they cross one half.

    Returns
    -------
    str
        ``d`` attribute in pixels of :func:`side_by_side`; pixel (0, 0) covers 0 to 1.
    """
    from skimage.measure import approximate_polygon, find_contours

    commands = []
    for number, tile in enumerate(tiles):
        offset = number * (tile.shape[1] + GAP)
        for line in find_contours(np.pad(tile, 1), 0.5):
            points = approximate_polygon(line, 0.35) - 0.5
            text = 'L'.join(f'{column + offset:.1f} {row:.1f}' for row, column in points)
            commands.append(f'M{text}Z')
    return ''.join(commands)
