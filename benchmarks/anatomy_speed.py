"""Time and memory of each step on a scanned head, and what the number of threads changes.

A session with a T1w and another scan is taken through the steps of ``tumsyn-bids``, each in a
process of its own, as Nipype does. Printed are, for each number of threads, the seconds that
passed, the seconds of all processors, and the peak of the memory; and how far the results lie
apart: Dice of two masks, millimetres between two transforms over the brain, differences of two
images over the range of the first.

Example::

    python benchmarks/anatomy_speed.py --session ../shared/data/ds-openms/sub-12/ses-1 \\
        --threads 1 2 --steps prepare brain rigid
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.affines import apply_affine

#: What results may differ by between numbers of threads: Dice of masks, mm, share of the range.
SAME_DICE, SAME_MM, SAME_VALUE = 0.995, 0.1, 0.01
_WORKER = """
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import anatomy_speed
import ants
wall, cpu = time.perf_counter(), time.process_time()
anatomy_speed.STEPS[sys.argv[2]](*map(Path, sys.argv[3:6]), sys.argv[6])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu, peak]))
"""


def prepare(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Header and bias field of both scans."""
    from tumsyn_bids.anatomy.bias import correct_bias
    from tumsyn_bids.anatomy.geometry import sanitize

    for path, name in ((t1w, 'fixed'), (other, 'moving')):
        correct_bias(sanitize(path).img).to_filename(folder / f'{name}.nii')


def brain(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Brain mask of the T1w."""
    from tumsyn_bids.anatomy.brain import extract_brain

    extract_brain(nb.load(folder / 'fixed.nii'), 'T1w').img.to_filename(folder / 'mask.nii')


def rigid(folder: Path, t1w: Path, other: Path, contrast: str, kind: str = 'rigid') -> None:
    """Rigid registration of the other scan with the T1w."""
    from tumsyn_bids.anatomy.registration import register_linear

    fixed, moving, mask = (nb.load(folder / f'{name}.nii') for name in ('fixed', 'moving', 'mask'))
    found = register_linear(fixed, moving, fixed_mask=mask, transform=kind)
    np.savetxt(folder / f'{kind}.txt', found.matrix)


def affine(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Affine registration of the other scan with the T1w."""
    rigid(folder, t1w, other, contrast, 'affine')


def syn(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Deformation that ``--coreg syn`` adds to an affine registration."""
    from tumsyn_bids.anatomy.registration import deform
    from tumsyn_bids.anatomy.standard import carry
    from tumsyn_bids.grids import Grid

    fixed, moving, mask = (nb.load(folder / f'{name}.nii') for name in ('fixed', 'moving', 'mask'))
    start = np.loadtxt(folder / 'affine.txt')
    with tempfile.TemporaryDirectory() as place:
        forward, _ = deform(fixed, moving, start, place, mask=mask)
        carry(moving, [forward], Grid.of(fixed)).to_filename(folder / 'syn.nii')


def check(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Self-check of the rigid registration."""
    from tumsyn_bids.anatomy.selfcheck import check_alignment

    fixed, moving, mask = (nb.load(folder / f'{name}.nii') for name in ('fixed', 'moving', 'mask'))
    matrix = np.loadtxt(folder / 'rigid.txt')
    check_alignment(fixed, moving, matrix, mask, contrast=contrast)


def standard(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Deformation onto the embedded average of MNI152NLin2009cAsym."""
    from tumsyn_bids.anatomy.averages import embedded_average, embedded_grid
    from tumsyn_bids.anatomy.standard import carry, normalize_brain

    img, mask = (nb.load(folder / f'{name}.nii') for name in ('fixed', 'mask'))
    with tempfile.TemporaryDirectory() as place:
        found = normalize_brain(img, mask, *embedded_average(), place)
        there = carry(img, [found.forward], embedded_grid('2'))
    there.to_filename(folder / 'standard.nii')


def tissues(folder: Path, t1w: Path, other: Path, contrast: str) -> None:
    """Tissues of the T1w."""
    from tumsyn_bids.anatomy.tissues import map_tissues

    found = map_tissues(nb.load(folder / 'fixed.nii'), nb.load(folder / 'mask.nii'))
    grey = nb.Nifti1Image(found.tissues.gm.astype(np.float32), found.grid.affine)
    grey.to_filename(folder / 'tissues.nii')


#: In the order in which they need each other's results.
STEPS = {
    step.__name__: step for step in (prepare, brain, rigid, check, affine, syn, standard, tissues)
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if results depend on the number of threads."""
    options = _parser().parse_args(argv)
    scans = _scans(options.session)
    passed = True
    with tempfile.TemporaryDirectory() as place:
        print('step      threads  seconds  of processors  peak GB  against the first')
        folders = [Path(place) / str(threads) for threads in options.threads]
        for step in (name for name in STEPS if name in options.steps):
            for threads, folder in zip(options.threads, folders, strict=True):
                folder.mkdir(exist_ok=True)
                seconds, busy, peak = _run(step, folder, scans, threads)
                same, text = _compared(step, folders[0], folder)
                passed &= same
                print(
                    f'{step:9} {threads:7d} {seconds:8.1f} {busy:14.1f} {peak:8.2f}  {text}',
                    flush=True,
                )
                if folder is not folders[0]:
                    _share(folders[0], folder)
    return 0 if passed else 1


def _run(step: str, folder: Path, scans: tuple[Path, Path, str], threads: int) -> list[float]:
    env = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
    env['ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'] = str(threads)
    here = str(Path(__file__).parent)
    command = [sys.executable, '-c', _WORKER, here, step, str(folder), *map(str, scans)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{step} failed: {done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def _share(first: Path, other: Path) -> None:
    """Let every step start from the results of the first number of threads."""
    for path in first.iterdir():
        (other / path.name).write_bytes(path.read_bytes())


def _compared(step: str, first: Path, other: Path) -> tuple[bool, str]:
    """Say how far the results of a step lie apart, and whether that is within the tolerance."""
    if first == other or step == 'check':
        return True, ''
    if step == 'brain':
        a, b = (np.asarray(nb.load(folder / 'mask.nii').dataobj) > 0 for folder in (first, other))
        dice = float(2 * (a & b).sum() / (a.sum() + b.sum()))
        return dice >= SAME_DICE, f'Dice {dice:.5f}'
    if step in ('rigid', 'affine'):
        mask = nb.load(first / 'mask.nii')
        points = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0)[::50])
        matrices = (np.loadtxt(folder / f'{step}.txt') for folder in (first, other))
        a, b = (apply_affine(matrix, points) for matrix in matrices)
        apart = float(np.linalg.norm(a - b, axis=1).max())
        return apart <= SAME_MM, f'{apart:.4f} mm'
    name = {'prepare': 'fixed'}.get(step, step)
    a, b = (nb.load(folder / f'{name}.nii').get_fdata() for folder in (first, other))
    if a.shape != b.shape:
        return False, 'other grids'
    differs = float(np.abs(a - b).mean() / np.ptp(a))
    return differs <= SAME_VALUE, f'{differs:.1e} of the range'


def _scans(session: Path) -> tuple[Path, Path, str]:
    t1w = next(session.glob('anat/*_T1w.nii.gz'), None)
    for contrast in ('T2w', 'FLAIR', 'PDw'):
        other = next(session.glob(f'anat/*_{contrast}.nii.gz'), None)
        if t1w and other:
            return t1w, other, contrast
    sys.exit(f'{session}: holds no T1w with another scan')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--session', type=Path, required=True, metavar='FOLDER')
    parser.add_argument('--threads', type=int, nargs='+', default=(1, 2))
    parser.add_argument('--steps', nargs='+', choices=STEPS, default=tuple(STEPS))
    return parser


if __name__ == '__main__':
    sys.exit(main())
