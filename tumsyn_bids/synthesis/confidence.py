"""How far a synthetic image can be trusted, without the image that it stands for.

Three questions that need no truth. *Reconstruction*: asked for the source's own acquisition, does
the model give the source back? If not, the source is not what its metadata say, or unlike all that
the model has learned. *Cycle*: does the synthetic image, as a source, lead back to the scan that
it was made from? If not, something was lost or made up on the way. *Prompt*: are the tissues as
bright against each other as the sequence equations say for the prompt?

All are looked at in an axial slab of the middle of the brain, which costs a few seconds an image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import nibabel as nb
import numpy as np

from ..acquisition import Acquisition
from ..grids import resample
from ..physics.expected import expected_signals
from ..physics.recontrast import of_classes, tissue_shares
from ..prompt import render_prompt
from ..protocols import default_protocol
from ..verdicts import FAIL, PASS, WARN, worst
from .synthesizer import BRIGHT, EncodedScan, Synthesizer

#: Where each figure is worth a warning and where an image has failed, and its better side (1: up,
#: -1: down). From ``benchmarks/confidence.py``.
THRESHOLDS: dict[str, tuple[float, float, int]] = {
    'reconstruction': (0.85, 0.75, 1),
    'cycle': (0.75, 0.50, 1),
    'prompt_deviation': (0.20, 0.35, -1),
}
_MEANING = {
    'reconstruction': 'the model does not recognise the source (correlation {value:.2f} with what '
    'it expects of such a scan): check that the metadata name the right contrast, and the scan',
    'cycle': 'the way back from the synthetic image does not lead to the source (correlation '
    '{value:.2f}): detail was lost or made up',
    'prompt_deviation': 'the tissues are not as bright as the prompt asks (deviation {value:.2f})',
}
_UNSEEN = {
    'reconstruction': 'whether the model recognises the source could not be looked at',
    'cycle': 'whether a way leads back to the source could not be looked at',
    'prompt_deviation': 'whether the tissues are as bright as the prompt asks could not be looked '
    'at: hardly a voxel is of one tissue alone',
}
#: Share from which a voxel counts as pure. A mean over whole classes would call acquired FLAIRs
#: wrong, as half of the voxels of thin sulci are cortex.
_PURE = 0.95
_LEAST_VOXELS = 30
#: What follows where a figure could not be had.
_UNKNOWN = {'reconstruction': FAIL, 'cycle': FAIL, 'prompt_deviation': WARN}
#: Thickness of the slab in mm, and how much of it on each side is context only.
_SLAB_MM, _CONTEXT_MM = 56.0, 8.0


@dataclass(frozen=True)
class Confidence:
    """Answers about one synthetic image.

    Attributes
    ----------
    reconstruction : float
        Pearson correlation, inside the brain, of the source and of what the model gives for the
        source's own acquisition. One value for all images of a source.
    cycle : float
        The same for the source and what the model makes of the synthetic image.
    prompt_deviation : float
        Root mean square difference of the brightness of white matter, cortex and fluid, where
        these are pure, from that of the equations, the brightest of the three being 1. Not a
        number where fewer than two of them are pure anywhere, as in a scan of few thick slices.
    """

    reconstruction: float
    cycle: float
    prompt_deviation: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures by name; one that is unknown is left out."""
        return {name: value for name, value in asdict(self).items() if np.isfinite(value)}

    @property
    def verdict(self) -> str:
        """``pass``, ``warn`` or ``fail``: that of the worst figure.

        What could not be looked at is no reason to trust an image.
        """
        return worst(_judge(*item) for item in asdict(self).items())

    @property
    def warnings(self) -> list[str]:
        """One sentence for each figure that is not good."""
        return [
            _MEANING[name].format(value=value) if np.isfinite(value) else _UNSEEN[name]
            for name, value in asdict(self).items()
            if _judge(name, value) != PASS
        ]


class Examiner:
    """Looks at the images made from one source.

    Parameters
    ----------
    synthesizer : Synthesizer
    encoded : EncodedScan
    source : Acquisition
        What the source is said to be.
    """

    def __init__(self, synthesizer: Synthesizer, encoded: EncodedScan, source: Acquisition):
        self._synthesizer, self._source = synthesizer, source
        slab, inner = _slab(encoded)
        self._grid = encoded.grid.cropped((0, 0, slab.start), _shape(encoded, slab))
        middle = encoded.grid.cropped((0, 0, inner.start), _shape(encoded, inner))
        self._middle = middle
        self._scan = encoded.source[:, :, inner]
        brain = resample(encoded.mask, self._grid, order=1, antialias=False) > 0.5
        self._mask = nb.Nifti1Image(brain.astype(np.uint8), self._grid.affine)
        self._inside = resample(self._mask, middle, order=0) > 0
        self._prompt = render_prompt(source.replace(voxel_size=None))
        again = synthesizer.decode(encoded, self._prompt, middle)
        self.reconstruction = self._likeness(again)
        t1w = default_protocol('T1w', source.field_strength)
        anatomy = synthesizer.decode(encoded, render_prompt(t1w), middle)
        self._shares = tissue_shares({'T1w': anatomy / BRIGHT}, self._inside)

    def examine(self, image: nb.spatialimages.SpatialImage, target: Acquisition) -> Confidence:
        """Judge a synthetic image.

        Parameters
        ----------
        image : SpatialImage
            In the individual space.
        target : Acquisition
            What was asked for.
        """
        encoded = self._synthesizer.encode(image, mask=self._mask, acquisition=target)
        back = self._synthesizer.decode(encoded, self._prompt, self._middle)
        return Confidence(
            reconstruction=self.reconstruction,
            cycle=self._likeness(back),
            prompt_deviation=self._deviation(resample(image, self._middle), target),
        )

    def _likeness(self, image: np.ndarray) -> float:
        a, b = image[self._inside], self._scan[self._inside]
        if a.std() == 0 or b.std() == 0:
            return 0.0
        return float(np.corrcoef(a, b)[0, 1])

    def _deviation(self, image: np.ndarray, target: Acquisition) -> float:
        if self._shares is None or not expected_signals(target).any():
            return float('nan')
        found, wanted = _levels(image, self._shares[:3]), of_classes(target)[:3]
        pure = np.isfinite(found)
        if pure.sum() < 2:
            return float('nan')
        found, wanted = found[pure], wanted[pure]
        difference = found / max(found.max(), 1e-6) - wanted / wanted.max()
        return float(np.sqrt(np.square(difference).mean()))


def _levels(image: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the median of an image where each class is pure; not a number where none is."""
    pure = [image[share > _PURE] for share in shares]
    return np.array([np.median(v) if len(v) >= _LEAST_VOXELS else np.nan for v in pure])


def _judge(name: str, value: float) -> str:
    if not np.isfinite(value):
        return _UNKNOWN[name]
    warn, fail, sign = THRESHOLDS[name]
    if sign * value < sign * fail:
        return FAIL
    return WARN if sign * value < sign * warn else PASS


def _slab(encoded: EncodedScan) -> tuple[slice, slice]:
    """Return the axial slices to look at, with and without their context."""
    zoom = float(encoded.grid.zooms[2])
    n_slices = encoded.source.shape[2]
    thickness, context = round(_SLAB_MM / zoom), round(_CONTEXT_MM / zoom)
    if n_slices <= thickness:
        return slice(0, n_slices), slice(0, n_slices)
    area = (encoded.source > 0).sum(axis=(0, 1))
    first = int(np.convolve(area, np.ones(thickness), mode='valid').argmax())
    last = first + thickness
    return slice(first, last), slice(first + context, last - context)


def _shape(encoded: EncodedScan, slices: slice) -> tuple[int, int, int]:
    return (*encoded.source.shape[:2], slices.stop - slices.start)
