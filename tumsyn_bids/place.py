"""Where in the brain a voxel lies, told without registration.

The mean and the spread of the brain's voxels along each axis turn a position into one that means
about the same in every brain. A network needs it to know apart what looks alike: cortex and
putamen, fluid in a ventricle and in a sulcus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BrainFrame:
    """Where a brain lies in a volume whose axes go right, anterior and superior.

    Attributes
    ----------
    centre : ndarray, shape (3,)
        Mean position of its voxels, in voxels.
    covariance : ndarray, shape (3, 3)
        Of the positions of its voxels, in voxels squared.
    """

    centre: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> BrainFrame:
        """Measure a brain mask.

        Parameters
        ----------
        mask : ndarray of bool, shape (X, Y, Z)

        Raises
        ------
        ValueError
            If the mask has fewer than two voxels along an axis.
        """
        points = np.argwhere(mask)
        if len(points) == 0 or (np.ptp(points, axis=0) == 0).any():
            raise ValueError('a mask of less than two voxels along an axis is no brain')
        return cls(points.mean(axis=0), np.cov(points.T))

    def seen_from(self, matrix: np.ndarray, centre: np.ndarray) -> BrainFrame:
        """Return the frame in other coordinates: voxel = ``matrix`` @ other + ``centre``."""
        inverse = np.linalg.inv(matrix)
        return BrainFrame(inverse @ (self.centre - centre), inverse @ self.covariance @ inverse.T)

    def places(self, first, shape) -> np.ndarray:
        """Return the places of the voxels of a box.

        Parameters
        ----------
        first : sequence of 3 float
            Position of the first voxel of the box.
        shape : sequence of 3 int

        Returns
        -------
        ndarray of float32, shape (3, X, Y, Z)
            Distance from the middle plane, and position along the other two axes, in standard
            deviations of the brain: within about 2.5. Left and right are not told apart.
        """
        lines = [np.arange(n) + start for n, start in zip(shape, first, strict=True)]
        axes = [self._along(axis, line) for axis, line in enumerate(lines)]
        return np.stack(np.meshgrid(*axes, indexing='ij'))

    def places_of(self, points: np.ndarray) -> np.ndarray:
        """Return the places of points, as :meth:`places` does for voxels.

        Parameters
        ----------
        points : ndarray, shape (K, 3)
            In voxels.

        Returns
        -------
        ndarray of float32, shape (K, 3)
        """
        return np.stack([self._along(axis, points[:, axis]) for axis in range(3)], axis=1)

    def _along(self, axis: int, positions: np.ndarray) -> np.ndarray:
        spread = np.sqrt(self.covariance[axis, axis])
        place = ((positions - self.centre[axis]) / spread).astype(np.float32)
        return np.abs(place) if axis == 0 else place
