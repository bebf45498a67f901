"""Measure co-registration and brain extraction against the references of an open dataset.

The dataset is raw BIDS (sessions of T1w, T2w and FLAIR with skull), with two things made by its
authors under ``sourcedata/open_ms_data/patient<label>``: the transforms between the scans of a
session (``study<session>_<contrast>_intrastudy_to_FLAIR.txt``), and a brain mask on a common grid
with the transforms to it (``study<session>_FLAIR_to_common_space.txt``).

Registration: mean and largest distance (mm), over the voxels of the brain, between where our
transform and theirs place them, and how far they lie apart to begin with. With ``--displace``,
each moving scan is displaced first by random rotations and shifts of the given size. ``--coreg``
chooses the kind of transform, as on the command line of the program.

Brain masks: each scan as the only one of its session. Dice, volume, and what is too much and too
little (ml), within the slices that the reference mask covers.

Checks (``--parts checks``): each scan laid on the first scan of its own session, and on that of
another person: what the self-check measures, which has to tell the two apart. A later session of
the same person is among them.

Parts and people can be chosen, so that each call takes minutes.

Example::

    python benchmarks/anatomy.py --data ../shared/data/ds-openms --json anatomy.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from tumsyn_bids.anatomy.bias import correct_bias
from tumsyn_bids.anatomy.brain import extract_brain
from tumsyn_bids.anatomy.conversion import read_itk
from tumsyn_bids.anatomy.geometry import sanitize
from tumsyn_bids.anatomy.registration import deform, register_linear
from tumsyn_bids.anatomy.selfcheck import check_alignment
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.verdicts import worst

CONTRASTS = ('T1w', 'T2w', 'FLAIR')
#: Reference masks that are known to be wrong: 2.4 l.
WRONG_MASKS = ('19',)
#: What has to hold: mean and largest registration error in mm, and Dice.
TRE_MEAN_MM, TRE_PAIR_MM, DICE = 1.0, 2.0, 0.96


@dataclass(frozen=True)
class Session:
    """A session and its reference files."""

    data: Path
    subject: str
    session: str

    @property
    def label(self) -> str:
        return f'sub-{self.subject}_ses-{self.session}'

    @property
    def source(self) -> Path:
        return self.data / 'sourcedata' / 'open_ms_data' / f'patient{self.subject}'

    def scan(self, contrast: str) -> Path:
        folder = self.data / f'sub-{self.subject}' / f'ses-{self.session}' / 'anat'
        return folder / f'{self.label}_{contrast}.nii.gz'

    def from_flair(self, contrast: str) -> np.ndarray:
        """Return the reference transform from FLAIR to a scan, world coordinates."""
        if contrast == 'FLAIR':
            return np.eye(4)
        name = f'study{self.session}_{contrast.upper()}_intrastudy_to_FLAIR.txt'
        return read_itk(self.source / name)

    def masks(self, contrast: str, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Return the reference mask on the grid of a scan, and where it says anything."""
        mask = nb.load(self.source / 'brainmask.nii.gz')
        inside = np.asarray(mask.dataobj) > 0
        slices = np.flatnonzero(inside.any(axis=(0, 1)))
        covered = np.zeros(inside.shape, dtype=np.float32)
        covered[1:-1, 1:-1, slices[0] : slices[-1] + 1] = 1
        to_flair = read_itk(self.source / f'study{self.session}_FLAIR_to_common_space.txt')
        world = np.linalg.inv(self.from_flair(contrast) @ to_flair)
        return tuple(
            resample(nb.Nifti1Image(part.astype(np.float32), mask.affine), grid, world=world) > 0.5
            for part in (inside, covered)
        )


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a bar is missed."""
    options = _parser().parse_args(argv)
    sessions = _sessions(options.data, options.participant_label)
    prepared: dict = {}
    results = {'brain': [], 'registration': [], 'checks': []}
    if 'brain' in options.parts:
        results['brain'] = _brain_table(sessions, prepared, options)
    if 'registration' in options.parts:
        results['registration'] = _registration_table(sessions, prepared, options)
    if 'checks' in options.parts:
        results['checks'] = _check_table(sessions, prepared, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + '\n')
    return 0 if _passes(results) else 1


def _passes(results: dict) -> bool:
    dice = [row['dice'] for row in results['brain'] if row['dice'] is not None]
    errors = [row['tre_mean'] for row in results['registration']]
    passed = True
    if dice:
        print(f'\nDice: mean {np.mean(dice):.4f}, lowest {min(dice):.4f} (bar {DICE})')
        for contrast in CONTRASTS:
            of_contrast = [row['dice'] for row in results['brain'] if row['contrast'] == contrast]
            known = [value for value in of_contrast if value is not None]
            if known:
                print(f'  {contrast:6} mean {np.mean(known):.4f}, lowest {min(known):.4f}')
        passed &= min(dice) >= DICE
    if errors:
        print(f'\nTRE: mean {np.mean(errors):.2f} mm, largest {max(errors):.2f} mm', end=' ')
        print(f'(bars {TRE_MEAN_MM}, {TRE_PAIR_MM})')
        passed &= np.mean(errors) <= TRE_MEAN_MM and max(errors) <= TRE_PAIR_MM
    for row in results['checks']:
        passed &= (row['likeness-to-mirrored'] == 'pass') == row['same_person']
    return bool(passed)


def _brain_table(sessions, prepared, options) -> list[dict]:
    print('session         only scan  Dice    ml (ref)     too much/little  s    warnings')
    rows = []
    for session in sessions:
        for contrast in CONTRASTS:
            if not session.scan(contrast).exists():
                continue
            img = _prepared(session, contrast, prepared)
            started = time.perf_counter()
            brain = extract_brain(img, contrast, threads=options.threads)
            seconds = time.perf_counter() - started
            row = _mask_row(session, contrast, img, brain, seconds)
            rows.append(row)
            print(
                f'{session.label:15} {contrast:9}',
                '   -  ' if row['dice'] is None else f' {row["dice"]:.4f}',
                f'{row["ml"]:5.0f} ({row["reference_ml"]:5.0f})',
                f'{row["too_much_ml"]:8.0f} /{row["too_little_ml"]:5.0f}   {seconds:6.1f}',
                '; '.join(brain.warnings),
                flush=True,
            )
    return rows


def _mask_row(session, contrast, img, brain, seconds) -> dict:
    ours = np.asarray(brain.img.dataobj) > 0
    theirs, covered = session.masks(contrast, Grid.of(img))
    millilitres = abs(np.linalg.det(img.affine)) / 1000
    both = (ours & theirs & covered).sum()
    dice = 2 * both / ((ours & covered).sum() + (theirs & covered).sum())
    return {
        'session': session.label,
        'contrast': contrast,
        'dice': None if session.subject in WRONG_MASKS else float(dice),
        'ml': brain.volume_ml,
        'reference_ml': float(theirs.sum() * millilitres),
        'too_much_ml': float((ours & ~theirs & covered).sum() * millilitres),
        'too_little_ml': float((~ours & theirs & covered).sum() * millilitres),
        'seconds': seconds,
        'warnings': list(brain.warnings),
    }


def _registration_table(sessions, prepared, options) -> list[dict]:
    print('\nsession         fixed <- moving   apart (mm)  TRE mean  largest   s    start')
    rng = np.random.default_rng(options.seed)
    rows = []
    for session in sessions:
        present = [name for name in CONTRASTS if session.scan(name).exists()]
        fixed = _prepared(session, present[0], prepared)
        mask = extract_brain(fixed, present[0], threads=options.threads).img
        points = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0)[::50])
        for contrast in present[1:]:
            moving = _prepared(session, contrast, prepared)
            truth = session.from_flair(contrast) @ np.linalg.inv(session.from_flair(present[0]))
            if options.displace:
                move = _displacement(rng, options.displace, points.mean(axis=0))
                moving = nb.Nifti1Image(moving.dataobj, move @ moving.affine)
                truth = move @ truth
            started = time.perf_counter()
            ours, start = _mapped(points, fixed, moving, mask, options)
            seconds = time.perf_counter() - started
            there = apply_affine(truth, points)
            error = np.linalg.norm(ours - there, axis=1)
            row = {
                'session': session.label,
                'fixed': present[0],
                'moving': contrast,
                'apart': float(np.linalg.norm(points - there, axis=1).mean()),
                'tre_mean': float(error.mean()),
                'tre_largest': float(error.max()),
                'seconds': seconds,
            }
            rows.append(row)
            print(
                f'{session.label:15} {present[0]:5} <- {contrast:6} {row["apart"]:11.1f}',
                f'{row["tre_mean"]:9.2f} {row["tre_largest"]:9.2f} {seconds:6.1f}   {start}',
                flush=True,
            )
    return rows


def _mapped(points, fixed, moving, mask, options) -> tuple[np.ndarray, str]:
    """Return where our transform places points of the fixed scan, and what it started from."""
    found = register_linear(
        fixed,
        moving,
        fixed_mask=mask,
        transform='rigid' if options.coreg == 'rigid' else 'affine',
        threads=options.threads,
    )
    if options.coreg != 'syn':
        return apply_affine(found.matrix, points), found.start
    import ants
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        forward, _ = deform(fixed, moving, found.matrix, folder, mask=mask)
        itk = pd.DataFrame(points * [-1, -1, 1], columns=list('xyz'))
        there = ants.apply_transforms_to_points(3, itk, [str(forward)])
    return there[list('xyz')].to_numpy() * [-1, -1, 1], found.start


def _check_table(sessions, prepared, options) -> list[dict]:
    print('\nfixed <- moving                          values; worst result')
    references = {}
    for session in sessions:
        if session.subject in references:
            continue
        contrast = next(name for name in CONTRASTS if session.scan(name).exists())
        fixed = _prepared(session, contrast, prepared)
        mask = extract_brain(fixed, contrast, threads=options.threads).img
        references[session.subject] = session, contrast, fixed, mask
    rows = []
    for session in sessions:
        people = list(references)
        other = people[(people.index(session.subject) + 1) % len(people)]
        for contrast in ('T2w', 'FLAIR'):
            for person in dict.fromkeys((session.subject, other)):
                if session.scan(contrast).exists():
                    moving = _prepared(session, contrast, prepared)
                    rows.append(_checked(references[person], session, contrast, moving, options))
    return rows


def _checked(reference, session, contrast, moving, options) -> dict:
    of, of_contrast, fixed, mask = reference
    found = register_linear(fixed, moving, fixed_mask=mask, threads=options.threads)
    checks = check_alignment(fixed, moving, found.matrix, mask, contrast=contrast)
    print(
        f'{of.label} {of_contrast} <- {session.label} {contrast:6}',
        ' '.join(f'{check.measure} {check.value:.2f}' for check in checks),
        worst(check.result for check in checks),
        flush=True,
    )
    same = of.subject == session.subject
    return {'same_person': same, **{check.measure: check.result for check in checks}}


def _displacement(rng, size: float, centre: np.ndarray) -> np.ndarray:
    """Return a turn of ``size`` degrees and a shift of ``size`` mm, in random directions."""
    axis, shift = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_rotvec(size * axis, degrees=True).as_matrix()
    move[:3, 3] = centre - move[:3, :3] @ centre + size * shift
    return move


def _prepared(session: Session, contrast: str, prepared: dict) -> nb.Nifti1Image:
    key = session, contrast
    if key not in prepared:
        prepared[key] = correct_bias(sanitize(session.scan(contrast)).img)
    return prepared[key]


def _sessions(data: Path, people: list[str] | None) -> list[Session]:
    found = [
        Session(data, folder.parent.name[4:], folder.name[4:])
        for folder in sorted(data.glob('sub-*/ses-*'))
    ]
    found = [session for session in found if people is None or session.subject in people]
    if not found:
        sys.exit(f'{data}: holds no sub-*/ses-* that was asked for')
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--data', type=Path, required=True, metavar='DATASET')
    parser.add_argument(
        '--parts',
        nargs='+',
        choices=('brain', 'registration', 'checks'),
        default=('brain', 'registration'),
    )
    parser.add_argument('--participant-label', nargs='+', metavar='LABEL', help='all if not given')
    parser.add_argument('--coreg', choices=('rigid', 'affine', 'syn'), default='rigid')
    parser.add_argument(
        '--displace', type=float, default=0, metavar='SIZE', help='degrees and mm (none if 0)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of --displace')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures here')
    return parser


if __name__ == '__main__':
    sys.exit(main())
