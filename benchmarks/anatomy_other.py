"""Measure brain masks on what the open clinical dataset lacks: strokes, children, more contrasts.

``--stroke FOLDER`` holds ``T2.nii.gz``, a head, and ``lesionT2.nii.gz``, the lesion drawn on it:
the mask has to be plausible and to hold the lesion. ``--children FOLDER`` is a BIDS dataset of
images without skull: that has to be recognised, and brains too small for an adult's have to be
pointed at. ``--no-heads`` are a simulated knee, a bottle, a ball and noise, of which none may
pass. ``--contrasts`` simulates heads with known brain in contrasts and slice thicknesses that are
hard to come by; Dice is taken against the truth.

Example::

    python benchmarks/anatomy_other.py --stroke ../shared/data/stroke-t2 \\
        --children ../shared/data/bme-x-children --contrasts PDw T2starw T1CE
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np

from tumsyn_bids.acquisition import CONTRASTS
from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.brain import extract_brain
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.errors import ScanError
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.anatomy import build_anatomy
from tumsyn_bids.simulation.phantom import draw_person
from tumsyn_bids.simulation.scanner import View, scan, scan_grid
from tumsyn_bids.verdicts import worst

#: What has to hold: share of the lesion inside the mask, Dice.
LESION_INSIDE, DICE = 0.95, 0.95
ADULT_ML = (800, 2200)
#: Voxels (mm) of simulated scans; slices last.
ZOOMS = {'thin': (1.0, 1.0, 1.5), 'thick': (0.9, 0.9, 5.0)}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a bar is missed."""
    options = _parser().parse_args(argv)
    print('image                      contrast  method   ml    checks  what                  s')
    passed = []
    if options.stroke:
        passed.append(_stroke(options.stroke, options.threads))
    if options.children:
        found = sorted(options.children.glob('sub-*/**/anat/*_T[12]w.nii.gz'))
        passed += [_child(path, options.threads) for path in found]
    if options.no_heads:
        passed += _no_heads(options.threads)
    if options.contrasts:
        passed += _simulated(options)
    print(f'\n{sum(passed)} of {len(passed)} hold')
    return 0 if passed and all(passed) else 1


def _stroke(folder: Path, threads: int) -> bool:
    brain, seconds = _extracted(correct_bias(sanitize(folder / 'T2.nii.gz').img), 'T2w', threads)
    lesion = np.asarray(nb.load(folder / 'lesionT2.nii.gz').dataobj) > 0
    inside = float((np.asarray(brain.img.dataobj) > 0)[lesion].mean())
    _line('stroke', 'T2w', brain, f'{inside:.1%} of the lesion', seconds)
    return inside >= LESION_INSIDE and ADULT_ML[0] <= brain.volume_ml <= ADULT_ML[1]


def _child(path: Path, threads: int) -> bool:
    contrast = path.name.split('.')[0].split('_')[-1]
    brain, seconds = _extracted(sanitize(path).img, contrast, threads)
    plausible = ADULT_ML[0] <= brain.volume_ml <= ADULT_ML[1]
    said = any('implausible' in text for text in brain.warnings)
    _line(path.name.split('_')[0], contrast, brain, 'recognised as stripped?', seconds)
    return brain.method == 'none' and (plausible or said)


def _no_heads(threads: int) -> list[bool]:
    rng = np.random.default_rng(0)
    shape, zoom = (50, 50, 50), 3.0
    x, y, z = ((np.indices(shape).T - np.array(shape) / 2) * zoom).T
    around = np.hypot(x, y)
    knee = np.where(around < 57, 350.0, np.where(around < 65, 900.0, 0))
    bone = np.hypot(x, y - 5) - 10 * np.exp(-((z / 25) ** 2))
    knee[bone < 18], knee[bone < 14] = 150, 800
    knee[(np.abs(z) < 4) & (np.hypot(x, y - 5) < 28)] = 500
    bottle = 800.0 * ((around < 70) & (np.abs(z) < 65))
    ball = 800.0 * (np.sqrt(x**2 + y**2 + z**2) < 70)
    things = {'knee': knee, 'bottle': bottle, 'ball': ball, 'noise': 10 * rng.gamma(2, 5, shape)}
    passed = []
    for name, data in things.items():
        noisy = np.abs(data + rng.normal(0, 20, shape)).astype(np.float32)
        img = nb.Nifti1Image(noisy, np.diag([zoom, zoom, zoom, 1.0]))
        try:
            brain, seconds = _extracted(img, 'T1w', threads)
        except ScanError as error:
            print(f'{name:26} refused: {error}', flush=True)
            passed.append(True)
            continue
        values = {check.measure: check.value for check in brain.checks}
        what = f'likeness {values["likeness"]:.2f}, cut {values["cut"]:.0f}'
        _line(name, 'T1w', brain, what, seconds)
        passed.append(worst(check.result for check in brain.checks) == 'fail')
    return passed


def _simulated(options) -> list[bool]:
    anatomy = build_anatomy(1)
    person = draw_person(np.random.default_rng(options.seed))
    passed = []
    for contrast in options.contrasts:
        for name, zooms in ZOOMS.items():
            grid = scan_grid(zooms, (220, 240, 180), 'RAS', centre=(0, -6, -2))
            acquisition = default_protocol(contrast, 3.0)
            img = scan(anatomy, person, acquisition, grid, seed=options.seed)
            brain, seconds = _extracted(correct_bias(img), contrast, options.threads)
            truth = View.of(anatomy, person, grid, None).nearest(anatomy.brain.astype(np.uint8))
            ours = np.asarray(brain.img.dataobj) > 0
            dice = float(2 * (ours & (truth > 0)).sum() / (ours.sum() + truth.sum()))
            _line(f'simulated, {name} slices', contrast, brain, f'Dice {dice:.3f}', seconds)
            passed.append(dice >= DICE)
    return passed


def _extracted(img, contrast: str, threads: int):
    started = time.perf_counter()
    brain = extract_brain(img, contrast, threads=threads)
    return brain, time.perf_counter() - started


def _line(name: str, contrast: str, brain, what: str, seconds: float) -> None:
    result = worst(check.result for check in brain.checks)
    print(
        f'{name:26} {contrast:9} {brain.method:7} {brain.volume_ml:5.0f}  {result:6}  {what:22}',
        f'{seconds:5.0f}',
        flush=True,
    )
    for text in brain.warnings:
        print(f'    {text}', flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--stroke', type=Path, metavar='FOLDER')
    parser.add_argument('--children', type=Path, metavar='FOLDER')
    parser.add_argument('--no-heads', action='store_true')
    parser.add_argument('--contrasts', nargs='+', choices=CONTRASTS, default=())
    parser.add_argument('--seed', type=int, default=0, help='of the simulated person')
    parser.add_argument('--threads', type=int, default=2)
    return parser


if __name__ == '__main__':
    sys.exit(main())
