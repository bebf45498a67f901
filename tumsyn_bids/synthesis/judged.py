"""Synthetic images of one scan, each with what is known of how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nb
import numpy as np

from ..acquisition import Acquisition
from ..grids import Grid
from ..protocols import DEFAULT_VOXEL_SIZE
from .confidence import Examiner
from .memory import with_tiles_that_fit
from .synthesizer import Synthesizer


@dataclass(frozen=True)
class Wanted:
    """An image to make.

    Attributes
    ----------
    prompt : str
        What the network is told.
    acquisition : Acquisition
        What is asked for; 1 mm voxels where it names no size.
    """

    prompt: str
    acquisition: Acquisition


@dataclass(frozen=True)
class Judged:
    """A synthetic image.

    Attributes
    ----------
    image : Nifti1Image
    confidence : dict of str to float or str
        Figures of :class:`~tumsyn_bids.synthesis.confidence.Confidence` and ``verdict``.
    warnings : list of str
        What is outside of what the model has learned, and what is doubtful.
    """

    image: nb.Nifti1Image
    confidence: dict[str, float | str]
    warnings: list[str]


def make_images(
    synthesizer: Synthesizer,
    scan: nb.spatialimages.SpatialImage,
    wanted: Sequence[Wanted],
    *,
    field_of_view: Grid,
    mask: nb.spatialimages.SpatialImage,
    source: Acquisition,
    world: np.ndarray | None = None,
) -> list[Judged]:
    """Encode a scan once, make all the images that are wanted of it, and judge them.

    Parameters
    ----------
    synthesizer : Synthesizer
    scan : SpatialImage
        Bias-corrected, in its native space.
    wanted : sequence of Wanted
    field_of_view : Grid
        What the images show, in the individual space. Voxel sizes are asked for along the axes of
        the head, however the file is stored.
    mask : SpatialImage
        Brain mask in the individual space.
    source : Acquisition
        What the scan is.
    world : ndarray, shape (4, 4), optional
        From the individual space to that of the scan, as
        :meth:`~tumsyn_bids.synthesis.synthesizer.Synthesizer.encode` takes it.

    Raises
    ------
    ScanError
        If the scan cannot be used.
    SessionError
        If the GPU has too little memory.
    """

    field_of_view = field_of_view.canonical()
    grids = [
        field_of_view.with_zooms(item.acquisition.voxel_size or DEFAULT_VOXEL_SIZE)
        for item in wanted
    ]

    def make(synthesizer: Synthesizer) -> list[tuple]:
        encoded = synthesizer.encode(scan, mask=mask, world=world, acquisition=source)
        images = [
            nb.Nifti1Image(synthesizer.decode(encoded, item.prompt, grid), grid.affine)
            for item, grid in zip(wanted, grids, strict=True)
        ]
        examiner = Examiner(synthesizer, encoded, source)
        return [
            (image, examiner.examine(image, item.acquisition))
            for image, item in zip(images, wanted, strict=True)
        ]

    made, doubts = with_tiles_that_fit(synthesizer, make)
    judged = []
    for item, (image, confidence) in zip(wanted, made, strict=True):
        contrast = item.acquisition.contrast
        warnings = [
            *synthesizer.in_range(item.acquisition),
            *doubts,
            *(f'synthetic {contrast}: {text}' for text in confidence.warnings),
        ]
        figures = {**confidence.to_dict(), 'verdict': confidence.verdict}
        judged.append(Judged(image, figures, warnings))
    return judged
