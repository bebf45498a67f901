"""How well two heads lie on one another, whatever their contrasts."""

from __future__ import annotations

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..grids import Grid
from .intensity import head_mask

BINS = 32
#: Share of the compared points that must lie inside the moving image for a pose to be credible.
MIN_OVERLAP = 0.3


class Comparison:
    """Points of a fixed image, to be compared with a moving image under any transform.

    Parameters
    ----------
    fixed, moving : ndarray
        On isotropic voxels of one size, which is also the distance of the points.
    fixed_grid, moving_grid : Grid
    inside : ndarray of bool, shape of ``fixed``
        The points to compare.

    Attributes
    ----------
    centre : ndarray, shape (3,)
        Of the points, in world coordinates of the fixed image.
    moving_centre : ndarray, shape (3,)
        Of the moving head, in its own world coordinates.
    """

    def __init__(
        self,
        fixed: np.ndarray,
        fixed_grid: Grid,
        moving: np.ndarray,
        moving_grid: Grid,
        inside: np.ndarray,
    ):
        self.moving = moving
        self._to_voxels = np.linalg.inv(moving_grid.affine)
        # Coordinates in rows, mapped row by row: a product of matrices would go through BLAS and
        # its threads, for little work at a time.
        self._points = np.ascontiguousarray(apply_affine(fixed_grid.affine, np.argwhere(inside)).T)
        self._fixed_bins = _scaled(fixed[inside], fixed[inside]).round().astype(np.int64)
        self._binned = _scaled(moving, moving).astype(np.float32)
        self.centre = self._points.mean(axis=1)
        self.moving_centre = apply_affine(
            moving_grid.affine, np.argwhere(head_mask(moving)).mean(axis=0)
        )

    def cost(self, matrix: np.ndarray) -> float:
        """Return the negative mutual information (nats), scaled by the overlap.

        Parameters
        ----------
        matrix : ndarray, shape (4, 4)
            Fixed to moving RAS+ world coordinates.
        """
        places, inside = self._places(matrix)
        overlap = inside.mean()
        if overlap < MIN_OVERLAP:
            return 0.0
        bins = self._fixed_bins
        if overlap < 1:
            places, bins = places[:, inside], bins[inside]
        values = ndimage.map_coordinates(self._binned, places, order=1)
        return float(-overlap * _mutual_information(bins, values))

    def covered(self, matrix: np.ndarray) -> float:
        """Return the share of the points that lie inside the moving image."""
        return float(self._places(matrix)[1].mean())

    def moved(self, matrix: np.ndarray) -> float:
        """Return the mean distance (mm) over which a transform moves the points."""
        there = _mapped(matrix, self._points)
        return float(np.linalg.norm(there - self._points, axis=0).mean())

    def _places(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = _mapped(self._to_voxels @ matrix, self._points)
        limits = np.array(self.moving.shape)[:, None] - 1
        return places, ((places >= 0) & (places <= limits)).all(axis=0)

    def pose(self, parameters) -> np.ndarray:
        """Return the matrix of a motion about the centre.

        Parameters
        ----------
        parameters : sequence of 6 or 9 float
            Rotations about x, y and z in units of 3 degrees, shifts in units of 3 mm (on the
            surface of a brain the two move points about equally far), and logarithms of the
            scales in units of 5 %.
        """
        parameters = np.asarray(parameters, dtype=float)
        matrix = np.eye(4)
        turn = Rotation.from_euler('xyz', 3 * parameters[:3], degrees=True).as_matrix()
        matrix[:3, :3] = turn * np.exp(0.05 * parameters[6:]) if len(parameters) > 6 else turn
        matrix[:3, 3] = self.centre - matrix[:3, :3] @ self.centre + 3 * parameters[3:6]
        return matrix


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mutual information (nats) of the values of two images at the same places."""
    if first.size == 0:
        return 0.0
    bins = _scaled(first, first).round().astype(np.int64)
    return _mutual_information(bins, _scaled(second, second))


def _mapped(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a matrix to points, their coordinates in rows."""
    return np.stack(
        [
            row[0] * points[0] + row[1] * points[1] + row[2] * points[2] + row[3]
            for row in matrix[:3]
        ]
    )


def _scaled(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Scale values linearly so that the sample spans all bins."""
    low, high = float(sample.min()), float(sample.max())
    return (values - low) / max(high - low, 1e-12) * (BINS - 1)


def _mutual_information(fixed_bins: np.ndarray, moving_places: np.ndarray) -> float:
    """Return the mutual information of a binned and a linearly binned variable, in nats."""
    lower = np.clip(np.floor(moving_places), 0, BINS - 2).astype(np.int64)
    upper_share = moving_places - lower
    cell = fixed_bins * BINS + lower
    joint = np.bincount(cell, 1 - upper_share, BINS * BINS)
    joint += np.bincount(cell + 1, upper_share, BINS * BINS)
    joint = joint.reshape(BINS, BINS) / len(fixed_bins)
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / expected[filled])).sum())
