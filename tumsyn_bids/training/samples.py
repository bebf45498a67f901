"""Training samples: one source, several targets with their prompts, on one patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from ..acquisition import CONTRASTS, FIELDS, Acquisition
from ..greys import PERCENTILES, grey_levels
from ..physics.expected import share_of, weighted_quantile
from ..physics.recontrast import BASES, recontrast
from ..place import BrainFrame
from ..prompt import render_prompt
from ..protocols import default_protocol, usual_protocol
from ..simulation.draw import draw_acquisition, draw_person
from ..simulation.generator import (
    LESIONS,
    ROTATION_DEG,
    TISSUE_NAMES,
    TissueVolume,
    class_levels,
    draw_grid,
    draw_matrix,
    draw_subject,
    random_levels,
    render,
    render_levels,
    sample_image,
)
from ..simulation.lesions import draw_lesions, paint_lesions
from .corruption import BRIGHTEST, blur, corrupt_source
from .people import PairedSubject, bounding_box
from .step import UNKNOWN_TISSUE

#: How often each contrast is drawn, relative to the others.
CONTRAST_WEIGHTS: dict[str, float] = {
    'T1w': 3,
    'T2w': 3,
    'FLAIR': 3,
    'PDw': 1.5,
    'T2starw': 1.2,
    'SWI': 1.0,
    'T1CE': 1.3,
}


#: Part of the samples of a real person that get lesions which that person does not have.
LESION_SHARE = 0.1
#: Part of the samples of a real person whose images are turned into those of drawn protocols.
RECONTRASTED_SHARE = 0.2
#: Part of the samples of a real person whose source is made worse than it is.
CORRUPTED_SHARE = 0.1
#: Part of the samples of a real person that are not turned or bent: interpolation between voxels
#: takes the finest structures from an image, and a network that has seen no others makes none.
STILL_SHARE = 0.7
#: Fewer people cannot teach what age and sex do: what they look like would be learned as what
#: their ages look like. The fewer there are, the more often a prompt states another age and sex.
FEW_PEOPLE = 50
#: Standard deviation of what places are off by, in standard deviations of the brain: masks differ.
PLACE_ERROR = 0.05
#: Standard deviation of what grey levels are off by: they are those of the scan before it is
#: spoiled, and no two scans of a protocol have the same.
GREY_ERROR = 0.05
_VOXELS_OF_GREYS = 5_000
_SHARE_OF = np.array([share_of(name) for name in TISSUE_NAMES])


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Attributes
    ----------
    source : ndarray of float32, shape (X, Y, Z)
    targets : ndarray of float32, shape (T, X, Y, Z)
    mask : ndarray of bool, shape (X, Y, Z)
    prompts : tuple of str, length T
        Of the targets.
    source_prompt : str
    acquisitions : tuple of Acquisition, length T
        What the targets are, with all that their prompts may leave open.
    tissue : ndarray of int64, shape (X, Y, Z), optional
        Place in :data:`~tumsyn_bids.physics.expected.BRAIN_SHARES` of the tissue of each voxel of
        the source, ``UNKNOWN_TISSUE`` outside the mask; only of what is simulated.
    place : ndarray of float32, shape (3, X, Y, Z)
        Of the voxels of the source in the brain (:mod:`tumsyn_bids.place`).
    greys : ndarray of float32, shape (len(PERCENTILES),)
        Of the source (:mod:`tumsyn_bids.greys`).
    """

    source: np.ndarray
    targets: np.ndarray
    mask: np.ndarray
    prompts: tuple[str, ...]
    source_prompt: str
    acquisitions: tuple[Acquisition, ...]
    place: np.ndarray
    greys: np.ndarray
    tissue: np.ndarray | None = None


def simulated_sample(
    rng: np.random.Generator,
    volumes: list[TissueVolume],
    *,
    patch: int,
    n_targets: int,
    whole: bool = False,
    rotation_deg: float = ROTATION_DEG,
    lesions: float = LESIONS,
) -> Sample:
    """Draw a sample from an anatomy and the sequence equations.

    With ``whole``, the patch lies in the middle of the brain, of which it should hold all, and the
    targets are of default protocols. The anatomy is turned by up to ``rotation_deg`` about each
    axis, and gets lesions that it does not have with the probability ``lesions``.
    """
    volume = volumes[rng.integers(len(volumes))]
    centre = volume.frame.centre if whole else _centre(rng, volume.distance == 0)
    matrix = draw_matrix(rng, rotation_deg=rotation_deg)
    grid = draw_grid(rng, volume.tissue.shape, patch, centre=centre, matrix=matrix)
    subject = draw_subject(rng, volume, grid, lesions=lesions)
    person = draw_person(rng)
    names = _draw_contrasts(rng, list(CONTRASTS), 1 + n_targets)
    acquisitions = [
        draw_acquisition(rng, name).replace(**person, voxel_size=(1.0, 1.0, 1.0)) for name in names
    ]
    if whole:
        acquisitions[1:] = [usual_protocol(acquisition) for acquisition in acquisitions[1:]]
    spread = rng.uniform(0.4, 0.7)
    if rng.random() < 0.1:
        levels, source_acquisition = random_levels(rng), Acquisition()
        source = render_levels(subject, levels)
    else:
        levels, source_acquisition = class_levels(subject, acquisitions[0]), acquisitions[0]
        source = render(subject, acquisitions[0])
    source = blur(source, spread) * subject.mask
    targets = [
        blur(np.minimum(render(subject, acq), BRIGHTEST), 0.5) * subject.mask
        for acq in acquisitions[1:]
    ]
    return Sample(
        source=corrupt_source(rng, source, subject.mask),
        targets=np.stack(targets).astype(np.float32),
        mask=subject.mask,
        prompts=tuple(render_prompt(forget_fields(rng, acq)) for acq in acquisitions[1:]),
        source_prompt=_source_prompt(rng, source_acquisition),
        acquisitions=tuple(acquisitions[1:]),
        place=_places(rng, volume.frame.seen_from(matrix, centre), (patch,) * 3),
        greys=_greys_of_classes(rng, levels, subject.fractions),
        tissue=np.where(subject.mask, _SHARE_OF[subject.tissue], UNKNOWN_TISSUE),
    )


def real_sample(
    rng: np.random.Generator,
    subjects: list[PairedSubject],
    *,
    patch: int,
    n_targets: int,
    whole: bool = False,
) -> Sample:
    """Draw a sample from a real person.

    Prompts say what the sidecars of the images say. Where these are silent, a prompt either leaves
    the protocol open or says what such an image is usually made with. Part of the images are
    turned into those of drawn protocols (:mod:`tumsyn_bids.physics.recontrast`), which teach,
    beside the simulation, what the parameters do.

    With ``whole``, the sample holds all of the brain, whatever its size, as it was acquired, and
    its prompts state the voxel size of any of the people half of the time.
    """
    subject = subjects[rng.integers(len(subjects))]
    view = _whole_brain(rng, subject) if whole else _patch_of(rng, subject, patch)
    mask = view.take(subject.mask) > 0.5
    drawn = subject.shares is not None and rng.random() < RECONTRASTED_SHARE
    if drawn and not whole:
        images, acquisitions, greys = _recontrasted(rng, subject, view.take, 1 + n_targets)
    else:
        images, acquisitions, greys = _as_acquired(rng, subject, view.take, 1 + n_targets)
    source = images[0] * mask
    if rng.random() < CORRUPTED_SHARE:
        source = corrupt_source(rng, source, mask, strength=0.6)
    person = _stated_person(
        rng, subject, len({other.label.partition('_')[0] for other in subjects})
    )
    size = subject.voxel_size
    if whole and rng.random() < 0.5:
        # Who scans thick slices scans otherwise with other contrasts, too: a size that always
        # were that of the scan would be learned as the name of the scanner.
        size = subjects[rng.integers(len(subjects))].voxel_size
    shown, *wanted = (
        acquisition.replace(**person, voxel_size=size) for acquisition in acquisitions
    )
    return Sample(
        source=source,
        targets=np.stack(images[1:]) * mask,
        mask=mask,
        prompts=tuple(render_prompt(forget_fields(rng, acquisition)) for acquisition in wanted),
        source_prompt=_source_prompt(rng, shown),
        acquisitions=tuple(wanted),
        place=_places(rng, view.frame, mask.shape),
        greys=_off_by_a_little(rng, greys),
    )


@dataclass(frozen=True)
class _View:
    """A part of a real person's brain.

    Attributes
    ----------
    take : callable
        Volume to the part of it that is seen.
    frame : BrainFrame
        From the middle of that part.
    """

    take: Callable[[np.ndarray], np.ndarray]
    frame: BrainFrame


def _whole_brain(rng, subject: PairedSubject) -> _View:
    """Return all of a brain as it was acquired, or its mirror image."""
    side = int(rng.choice([-1, 1]))
    middle = (np.array(subject.mask.shape) - 1) / 2
    mirror = np.diag([float(side), 1.0, 1.0])
    return _View(lambda volume: volume[::side], subject.frame.seen_from(mirror, middle))


def _patch_of(rng, subject: PairedSubject, patch: int) -> _View:
    if rng.random() < STILL_SHARE:
        matrix, bend = np.diag([rng.choice([-1.0, 1.0]), 1.0, 1.0]), 0.0
        # The middle of a patch of even size lies between voxels.
        centre = _centre(rng, subject.mask) + (patch - 1) / 2 % 1
    else:
        matrix, bend = draw_matrix(rng, rotation_deg=10, scale=0.08), 2.0
        centre = _centre(rng, subject.mask)
    grid = draw_grid(
        rng, subject.mask.shape, patch, centre=centre, matrix=matrix, bend_voxels=bend
    )
    frame = subject.frame.seen_from(matrix, centre)
    return _View(lambda volume: sample_image(volume, grid), frame)


def _stated_person(rng, subject: PairedSubject, people: int) -> dict:
    if rng.random() < FEW_PEOPLE / people:
        return draw_person(rng)
    return {'age': subject.person.age, 'sex': subject.person.sex}


def _recontrasted(rng, subject: PairedSubject, take, count: int):
    shares = np.stack([take(share) for share in subject.shares])
    names = [name for name, base in BASES.items() if base in subject.images]
    acquisitions = [draw_acquisition(rng, name) for name in _draw_contrasts(rng, names, count)]
    images = []
    for acquisition in acquisitions:
        base = BASES[acquisition.contrast]
        image = take(subject.images[base])
        image = recontrast(image, shares, subject.means[base], acquisition)
        images.append(np.minimum(image, BRIGHTEST))
    return images, acquisitions, _greys_as_recontrasted(rng, subject, acquisitions[0])


def _greys_as_recontrasted(rng, subject: PairedSubject, acquisition: Acquisition) -> np.ndarray:
    chosen = rng.choice(np.flatnonzero(subject.mask), _VOXELS_OF_GREYS)
    base = BASES[acquisition.contrast]
    image = subject.images[base].ravel()[chosen]
    shares = subject.shares.reshape(len(subject.shares), -1)[:, chosen].astype(np.float32)
    image = recontrast(image, shares, subject.means[base], acquisition)
    return grey_levels(np.minimum(image, BRIGHTEST), np.ones_like(image, dtype=bool))


def _as_acquired(rng, subject: PairedSubject, take, count: int):
    names = _draw_contrasts(rng, list(subject.images), count)
    images = [take(subject.images[name]) for name in names]
    if subject.white is not None and rng.random() < LESION_SHARE:
        near = take(subject.ventricle)
        lesions = draw_lesions(rng, take(subject.white) > 0.5, near)
        images = paint_lesions(rng, images, names, lesions)
    protocols = [_protocol_of(rng, subject, name) for name in names]
    return images, protocols, subject.greys[names[0]]


def _protocol_of(rng, subject: PairedSubject, name: str) -> Acquisition:
    if name in subject.protocols:
        return subject.protocols[name]
    return _usual(rng, name) if rng.random() < 0.8 else Acquisition(contrast=name)


def _source_prompt(rng, acquisition: Acquisition) -> str:
    """Say what the source is, now and then nothing: its metadata may be missing or wrong."""
    if rng.random() < 0.1:
        return render_prompt(Acquisition())
    return render_prompt(forget_fields(rng, acquisition, 0.25).replace(voxel_size=None))


def _usual(rng: np.random.Generator, contrast: str) -> Acquisition:
    # Never another one: as the image stays the same, parameters would be learned to do nothing.
    protocol = default_protocol(contrast, None)
    return protocol.replace(manufacturer=str(rng.choice(['Siemens', 'GE', 'Philips'])))


def forget_fields(
    rng: np.random.Generator, acquisition: Acquisition, probability: float = 0.12
) -> Acquisition:
    """Make fields unknown at random; the contrast and the voxel size stay."""
    keep = ('contrast', 'voxel_size')
    if rng.random() < 0.05:
        return Acquisition(contrast=acquisition.contrast, voxel_size=acquisition.voxel_size)
    forgotten = {name: None for name in FIELDS if name not in keep and rng.random() < probability}
    return acquisition.replace(**forgotten)


def _draw_contrasts(rng, names: list[str], count: int) -> list[str]:
    weights = np.array([CONTRAST_WEIGHTS[name] for name in names])
    count = min(count, len(names))
    return [
        names[i] for i in rng.choice(len(names), count, replace=False, p=weights / weights.sum())
    ]


def _places(rng, frame: BrainFrame, shape: tuple[int, int, int]) -> np.ndarray:
    """Return the places around a middle, as if the brain had been cut out a bit differently."""
    # Now and then by far: a field of view may hold a part of the brain only.
    error = PLACE_ERROR * (5 if rng.random() < 0.1 else 1)
    spread = np.sqrt(np.diag(frame.covariance))
    centre = frame.centre + error * spread * rng.standard_normal(3)
    larger = np.exp(error * rng.standard_normal(3))
    covariance = frame.covariance * np.outer(larger, larger)
    return BrainFrame(centre, covariance).places([-(n - 1) / 2 for n in shape], shape)


def _greys_of_classes(rng, levels: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    found = [weighted_quantile(levels, fractions, q / 100) for q in PERCENTILES]
    return _off_by_a_little(rng, np.array(found))


def _off_by_a_little(rng, greys: np.ndarray) -> np.ndarray:
    return (greys + GREY_ERROR * rng.standard_normal(len(greys))).astype(np.float32)


def _centre(rng, inside: np.ndarray) -> np.ndarray:
    flat = inside.ravel()
    while True:
        index = int(rng.integers(flat.size))
        if flat[index]:
            return np.array(np.unravel_index(index, inside.shape))


def off_grid(rng: np.random.Generator, sample: Sample) -> tuple[Sample, np.ndarray]:
    """Move the targets by a part of a voxel, so that the decoder learns to answer off its grid.

    Returns
    -------
    Sample
        With targets and mask at the displaced positions.
    ndarray, shape (3,)
        Displacement in voxels, within half a voxel.
    """
    offset = rng.uniform(-0.5, 0.5, 3)
    targets = [ndimage.shift(image, -offset, order=3, mode='nearest') for image in sample.targets]
    mask = ndimage.shift(sample.mask.astype(np.float32), -offset, order=1, mode='nearest') > 0.5
    moved = np.stack(targets).astype(np.float32) * mask
    return replace(sample, targets=moved, mask=mask), offset


def cropped(sample: Sample, margin: int = 8) -> Sample:
    """Return the part of a sample around its mask."""
    box = bounding_box(sample.mask, margin)
    return replace(
        sample,
        source=sample.source[box],
        targets=sample.targets[(slice(None), *box)],
        mask=sample.mask[box],
        place=sample.place[(slice(None), *box)],
        tissue=None if sample.tissue is None else sample.tissue[box],
    )


def to_tensors(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return source (1, 1, X, Y, Z), targets (1, T, X, Y, Z) and mask (1, 1, X, Y, Z)."""
    return (
        torch.from_numpy(np.ascontiguousarray(sample.source))[None, None],
        torch.from_numpy(np.ascontiguousarray(sample.targets))[None],
        torch.from_numpy(np.ascontiguousarray(sample.mask))[None, None].float(),
    )
