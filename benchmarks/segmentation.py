"""What do a second registration and the tissues add to a deformed atlas?

From label maps of other people than the atlas's (FreeSurfer's numbers, 1 mm, such as those that
SynthSeg is trained on) T1w images are made with the sequence equations, blurred to partial voxels
and with noise, and segmented four ways: labels of the atlas carried over by one registration; the
same, corrected by tissue; labels of the atlas and of its mirror image, fused; fused and corrected
(which is what ``--morphometry`` does). Printed are Dice and the error of the volume, in percent,
for each structure, mean of both sides and of all people.

With ``--tissues``, the three tissues that ``tumsyn-bids --tissues`` writes (Atropos) are measured
instead: Dice of the most probable ones, and the error of the sums of probabilities.

Simulated tissues are more uniform than real ones, so that whatever goes by brightness looks better
here than it will on scans.

Example::

    python benchmarks/segmentation.py ../shared/data/labelmaps/training_seg_0[139].nii.gz
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from tumsyn_bids.anatomy.antsreg import limit_threads
from tumsyn_bids.anatomy.tissues import NUMBERS, map_tissues
from tumsyn_bids.grids import resample
from tumsyn_bids.morphometry.fusion import fuse_mirrored
from tumsyn_bids.morphometry.guided import guided_tissues
from tumsyn_bids.morphometry.refinement import refine
from tumsyn_bids.morphometry.segmentation import carry_atlas, working_image
from tumsyn_bids.physics.expected import expected_signals, share_of
from tumsyn_bids.physics.tissues import tissue_of_label
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.generator import OUTSIDE_BRAIN

#: Structures by the numbers of their left and right side. The choroid plexus and the inferior horn
#: count as lateral ventricle; the corpus callosum as white matter.
STRUCTURES = {
    'cerebral white matter': ((2, 41, 251, 252, 253, 254, 255),),
    'cerebral cortex': ((3,), (42,)),
    'lateral ventricle': ((4, 5, 31, 136, 163), (43, 44, 63, 137, 164)),
    'thalamus': ((10,), (49,)),
    'caudate': ((11,), (50,)),
    'putamen': ((12,), (51,)),
    'pallidum': ((13,), (52,)),
    'hippocampus': ((17,), (53,)),
    'amygdala': ((18,), (54,)),
    'accumbens': ((26,), (58,)),
    'ventral DC': ((28,), (60,)),
    'cerebellar cortex': ((8,), (47,)),
    'cerebellar white matter': ((7,), (46,)),
    'brain stem': ((16,),),
    '3rd ventricle': ((14,),),
    '4th ventricle': ((15,),),
}
#: Tissues by BIDS' names, and the simulated ones that count as each.
TISSUES = {
    'GM': (
        'cortex',
        'cerebellar_cortex',
        'caudate',
        'putamen',
        'pallidum',
        'thalamus',
        'hippocampus',
        'amygdala',
        'accumbens',
    ),
    'WM': ('white_matter', 'cerebellar_white_matter', 'brain_stem', 'ventral_dc'),
    'CSF': ('csf', 'choroid_plexus'),
}
#: Standard deviations of the blur (voxels) and of the noise (of the brightest voxel).
BLUR, NOISE = 0.45, 0.03
#: How far (mm) beyond the parenchyma the brain mask reaches.
RIM_MM = 3


def simulated(path: Path, seed: int) -> tuple[nb.Nifti1Image, nb.Nifti1Image, nb.Nifti1Image]:
    """Return a T1w image, a brain mask and the labels of a person."""
    img = nb.as_closest_canonical(nb.load(path))
    labels = np.rint(np.asarray(img.dataobj)).astype(np.int32)
    values, inverse = np.unique(labels, return_inverse=True)
    tissues = [tissue_of_label(value) for value in values]
    outside = np.isin(tissues, OUTSIDE_BRAIN)[inverse].reshape(labels.shape)
    solid = ~np.isin(tissues, (*OUTSIDE_BRAIN, 'csf', 'vessel'))[inverse].reshape(labels.shape)
    pieces, _ = ndimage.label(solid)
    solid = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    mask = (ndimage.distance_transform_edt(~solid) <= RIM_MM) & ~outside
    signals = [*expected_signals(default_protocol('T1w', 3.0)), 0.0]
    bright = np.array([signals[share_of(tissue)] for tissue in tissues], np.float32)
    data = ndimage.gaussian_filter(bright[inverse].reshape(labels.shape) * mask, BLUR)
    noise = NOISE * data.max() * np.random.default_rng(seed).standard_normal(data.shape)
    data = np.abs(data + noise).astype(np.float32)
    return tuple(
        nb.Nifti1Image(part, img.affine) for part in (data, mask.astype(np.uint8), labels)
    )


def segmentations(brain, inside, grid, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the labels that each way finds."""
    carried = carry_atlas(brain, grid, seed)[0]
    mirrored = carry_atlas(brain, grid, seed, mirrored=True)[0]
    fused = fuse_mirrored(carried, mirrored, grid.zooms)
    for name, labels in (('one', carried), ('fused', fused)):
        yield name, labels
        tissues = guided_tissues(brain, inside, labels, grid.zooms)
        yield f'{name}, corrected', refine(labels, tissues, inside, grid.zooms)


def compared(labels: np.ndarray, truth: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return Dice and error of the volume (percent) of each structure, mean of its sides."""
    labels = np.where(labels >= 2000, 42, np.where(labels >= 1000, 3, labels))
    found = {}
    for name, sides in STRUCTURES.items():
        pairs = [(np.isin(labels, side), np.isin(truth, side)) for side in sides]
        dice = [2 * (ours & real).sum() / (ours.sum() + real.sum()) for ours, real in pairs]
        error = [100 * (ours.sum() / real.sum() - 1) for ours, real in pairs]
        found[name] = float(np.mean(dice)), float(np.mean(error))
    return found


def tissue_figures(t1w, mask, labels) -> dict[str, tuple[float, float]]:
    """Return Dice and error of the volume (percent) of each tissue."""
    found = map_tissues(t1w, mask)
    truth = np.rint(resample(labels, found.grid, order=0)).astype(int)
    inside = resample(mask, found.grid, order=0) > 0
    values, inverse = np.unique(truth, return_inverse=True)
    names = np.array([tissue_of_label(value) for value in values])[inverse].reshape(truth.shape)
    figures = {}
    for kind, members in TISSUES.items():
        real = np.isin(names, members) & inside
        ours = found.labels == NUMBERS[kind]
        volume = getattr(found.tissues, kind.lower()).sum()
        dice = 2 * (ours & real).sum() / (ours.sum() + real.sum())
        figures[kind] = float(dice), float(100 * (volume / real.sum() - 1))
    return figures


def main(argv: list[str] | None = None) -> int:
    """Segment every person every way; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('labelmaps', type=Path, nargs='+')
    parser.add_argument('--tissues', action='store_true')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--json', type=Path)
    options = parser.parse_args(argv)
    limit_threads(options.threads)
    people: dict[str, dict] = {}
    for path in options.labelmaps:
        t1w, mask, labels = simulated(path, options.seed)
        if options.tissues:
            people[path.name] = {'Atropos': tissue_figures(t1w, mask, labels)}
        else:
            brain, inside, grid = working_image(t1w, mask)
            truth = np.rint(resample(labels, grid, order=0)).astype(int)
            ways = segmentations(brain, inside, grid, options.seed)
            people[path.name] = {name: compared(found, truth) for name, found in ways}
        print(f'{path.name}: done', file=sys.stderr, flush=True)
    first = next(iter(people.values()))
    print(f'{"":24s}' + ''.join(f'{name:>20s}' for name in first))
    for row in next(iter(first.values())):
        means = [np.mean([who[name][row] for who in people.values()], axis=0) for name in first]
        print(f'{row:24s}' + ''.join(f'{dice:13.3f} {error:+5.0f}%' for dice, error in means))
    if options.json:
        options.json.write_text(json.dumps(people, indent=2) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
