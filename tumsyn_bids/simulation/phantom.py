"""Individual people: the shared anatomy, scaled and bent in a way that is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_LATTICE_MM = 6.0
_LATTICE_START = np.array([-120.0, -150.0, -190.0])
_LATTICE_SHAPE = (41, 49, 55)
_KNOT_EVERY = 5


@dataclass(frozen=True)
class Person:
    """The way from the head of one person to the template.

    A point ``p`` of the head (RAS+, mm, origin near the anterior commissure) lies in the template
    at ``q + bend(q)`` where ``q = matrix @ p``.

    Attributes
    ----------
    matrix : ndarray, shape (4, 4)
    bend : ndarray, shape (3, X, Y, Z)
        Displacements in mm on a lattice of 6 mm.
    """

    matrix: np.ndarray
    bend: np.ndarray

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map positions in the head to the template.

        Parameters
        ----------
        points : ndarray, shape (3, …)
            In mm.

        Returns
        -------
        ndarray of float64, shape (3, …)
        """
        straight = transform_points(self.matrix, points)
        at = (straight - _column(_LATTICE_START, straight.ndim)) / _LATTICE_MM
        bent = [
            straight[axis] + ndimage.map_coordinates(self.bend[axis], at, order=1, mode='nearest')
            for axis in range(3)
        ]
        return np.stack(bent)

    def from_template(self, points: np.ndarray) -> np.ndarray:
        """Map positions in the template to the head, to within 0.001 mm.

        Fixed-point iteration; the bends are gentle enough for it to converge quickly.
        """
        inverse = np.linalg.inv(self.matrix)
        linear = self.matrix.copy()
        linear[:3, 3] = 0
        found = transform_points(inverse, points)
        for _ in range(50):
            missed = points - self.to_template(found)
            if np.abs(missed).max() < 1e-4:
                break
            found = found + transform_points(np.linalg.inv(linear), missed)
        return found


def draw_person(
    rng: np.random.Generator,
    *,
    size: float = 0.94,
    stretch: float = 0.03,
    bend_mm: float = 3.0,
) -> Person:
    """Draw a person.

    Parameters
    ----------
    rng : numpy.random.Generator
    size : float
        Length in the head over length in the template, which is larger than most people.
    stretch : float
        Standard deviation of the relative change of length along each axis.
    bend_mm : float
        Standard deviation of the knots of the cubic B-spline that bends the head; they are
        30 mm apart.
    """
    scale = size * np.exp(rng.normal(0, stretch, 3))
    shear = np.eye(3) + np.triu(rng.normal(0, stretch / 2, (3, 3)), 1)
    matrix = np.eye(4)
    matrix[:3, :3] = shear / scale
    knots = rng.normal(0, bend_mm, (3, *(n // _KNOT_EVERY + 4 for n in _LATTICE_SHAPE)))
    axes = [np.arange(n) / _KNOT_EVERY + 1 for n in _LATTICE_SHAPE]
    at = np.stack(np.meshgrid(*axes, indexing='ij'))
    # The knots are spline coefficients, hence no prefilter.
    bend = [ndimage.map_coordinates(k, at, order=3, prefilter=False) for k in knots]
    return Person(matrix, np.stack(bend))


def rigid(angles_deg=(0, 0, 0), shift_mm=(0, 0, 0)) -> np.ndarray:
    """Return a rigid transform: rotations about x, then y, then z, then a shift.

    Parameters
    ----------
    angles_deg, shift_mm : sequence of 3 float

    Returns
    -------
    ndarray, shape (4, 4)
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_y @ about_x
    matrix[:3, 3] = shift_mm
    return matrix


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4×4 matrix to points of shape (3, …), in float64."""
    linear = matrix[:3, :3]
    return np.stack(
        [
            linear[row, 0] * points[0]
            + linear[row, 1] * points[1]
            + linear[row, 2] * points[2]
            + matrix[row, 3]
            for row in range(3)
        ]
    )


def _column(values: np.ndarray, ndim: int) -> np.ndarray:
    return np.asarray(values).reshape(3, *(1,) * (ndim - 1))
