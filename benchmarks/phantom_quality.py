"""How close are synthetic images to the truth, for every pair of contrasts and many voxel sizes?

A person whose head the sequence equations image is drawn from the atlas of the phantom; nothing
of it was trained on. Brain-only scans of 1 mm serve as sources, with noise; the truth is what the
equations give on the grid of the synthetic image, without noise. Figures are those of
:mod:`tumsyn_bids.evaluation.metrics`, beside the best look-up table from grey value to grey
value, fitted on the answer itself (``table*``).

``pairs``: every contrast from every other one.
``voxels``: T1w to FLAIR at voxel sizes from 0.7 to 5 mm, and a 5 mm axial FLAIR to a 1 mm T1w.
Beside the model stands what interpolation makes of the true contrast on the grid of the source,
linearly and by cubic splines: points of reference that no one has who lacks the contrast.

    python benchmarks/phantom_quality.py pairs
    python benchmarks/phantom_quality.py voxels
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import nibabel as nb
import numpy as np

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.evaluation.baselines import fit_lut
from tumsyn_bids.evaluation.metrics import prepare, psnr, ssim
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.anatomy import Anatomy, build_anatomy
from tumsyn_bids.simulation.dataset import brain_grid
from tumsyn_bids.simulation.phantom import Person, draw_person
from tumsyn_bids.simulation.scanner import View, as_image, contrast_map
from tumsyn_bids.synthesis.synthesizer import Synthesizer

PERSON = {'age': 45.0, 'sex': 'F'}
#: Edges in mm along the axes right, anterior, superior.
VOXEL_SIZES = (
    (0.7, 0.7, 0.7),
    (0.8, 0.8, 1.2),
    (1.0, 1.0, 1.0),
    (1.5, 1.5, 1.5),
    (2.0, 2.0, 2.0),
    (3.0, 3.0, 3.0),
    (1.0, 1.0, 3.0),
    (1.0, 1.0, 5.0),
)
#: Noise of a source relative to the brightness of its brain.
NOISE = 0.02


@dataclass(frozen=True)
class Head:
    """A simulated person and the grid of 1 mm around the brain."""

    anatomy: Anatomy
    person: Person
    grid: Grid

    @classmethod
    def draw(cls, seed: int) -> Head:
        """Draw a person."""
        anatomy = build_anatomy(1)
        person = draw_person(np.random.default_rng(seed), size=0.92)
        return cls(anatomy, person, brain_grid(anatomy, person, np.eye(4), zoom=1.0))

    def image(self, contrast: str, zooms, noise: float = 0.0) -> nb.Nifti1Image:
        """Image the brain without its surroundings."""
        view = self.view(zooms)
        made = view.mean(contrast_map(self.anatomy, protocol(contrast)))
        made *= view.nearest(self.anatomy.brain.astype(np.uint8))
        rng = np.random.default_rng(0)
        made += np.where(made > 0, noise * 100 * rng.standard_normal(made.shape), 0)
        return as_image(np.maximum(made, 0).astype(np.float32), view.grid)

    def mask(self, zooms) -> np.ndarray:
        """Return the brain on a grid of these voxels."""
        return self.view(zooms).nearest(self.anatomy.brain.astype(np.uint8)) > 0

    def view(self, zooms) -> View:
        """Locate a grid of these voxels."""
        grid = self.grid if np.allclose(zooms, 1) else self.grid.with_zooms(zooms)
        return View.of(self.anatomy, self.person, grid)


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    head = Head.draw(options.seed)
    synthesizer = Synthesizer.load(options.model, device=options.device)
    tables = {'pairs': pair_rows, 'voxels': voxel_rows}
    rows = []
    for row in tables[options.table](head, synthesizer):
        rows.append(row)
        sys.stdout.write('  '.join(_cell(value) for value in row.values()) + '\n')
        sys.stdout.flush()
    sys.stdout.write(f'{time.perf_counter() - started:.0f} s\n')
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + '\n')
    return 0


def protocol(contrast: str) -> Acquisition:
    """Return the default acquisition at 3 T of the simulated person."""
    return default_protocol(contrast, 3.0).replace(**PERSON)


def pair_rows(head: Head, synthesizer: Synthesizer):
    """Yield the figures of each pair of contrasts."""
    unit = (1.0, 1.0, 1.0)
    mask = head.mask(unit)
    truth = {name: prepare(head.image(name, unit).get_fdata(), mask) for name in CONTRASTS}
    encoded = {
        name: encode(synthesizer, head, head.image(name, unit, NOISE), name) for name in CONTRASTS
    }
    for source, target in permutations(CONTRASTS, 2):
        made = synthesizer.decode(encoded[source], render_prompt(protocol(target)), head.grid)
        made = prepare(made, mask)
        table = fit_lut(truth[source], truth[target], mask).apply(truth[source], mask)
        yield {
            'from': source,
            'to': target,
            **figures(made, truth[target], mask, 'model'),
            **figures(table, truth[target], mask, 'table*'),
        }


def voxel_rows(head: Head, synthesizer: Synthesizer):
    """Yield the figures of each voxel size, then those of the thick slices."""
    fine, thick = (1.0, 1.0, 1.0), (1.0, 1.0, 5.0)
    cases = [('T1w', 'FLAIR', fine, zooms) for zooms in VOXEL_SIZES]
    cases.append(('FLAIR', 'T1w', thick, fine))
    for source, target, from_zooms, to_zooms in cases:
        encoded = encode(synthesizer, head, head.image(source, from_zooms, NOISE), source)
        truth_image = head.image(target, to_zooms)
        grid, mask = Grid.of(truth_image), head.mask(to_zooms)
        truth = prepare(truth_image.get_fdata(), mask)
        wanted = protocol(target).replace(voxel_size=to_zooms)
        made = prepare(synthesizer.decode(encoded, render_prompt(wanted), grid), mask)
        row = {
            'from': f'{source} {_size(from_zooms)}',
            'to': f'{target} {_size(to_zooms)}',
            **figures(made, truth, mask, 'model'),
        }
        acquired = head.image(target, from_zooms)
        for name, order in (('linear', 1), ('cubic', 3)):
            interpolated = resample(acquired, grid, order=order)
            row |= figures(prepare(np.maximum(interpolated, 0), mask), truth, mask, name)
        yield row


def encode(synthesizer: Synthesizer, head: Head, image: nb.Nifti1Image, contrast: str):
    """Encode a source of the simulated person."""
    mask = as_image(head.mask((1.0, 1.0, 1.0)).astype(np.uint8), head.grid)
    return synthesizer.encode(image, mask=mask, acquisition=protocol(contrast))


def figures(made: np.ndarray, truth: np.ndarray, mask: np.ndarray, name: str) -> dict[str, float]:
    """Return PSNR of the whole and of the brain, and SSIM of the whole image."""
    return {
        f'{name} psnr_whole': psnr(made, truth),
        f'{name} psnr_brain': psnr(made, truth, mask),
        f'{name} ssim_whole': ssim(made, truth),
    }


def _size(zooms) -> str:
    return '×'.join(f'{zoom:g}' for zoom in zooms)


def _cell(value) -> str:
    return f'{value:16}' if isinstance(value, str) else f'{value:6.3f}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('table', choices=('pairs', 'voxels'))
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--seed', type=int, default=5, help='of the person')
    parser.add_argument('--json', type=Path, help='also write all figures to this file')
    return parser


if __name__ == '__main__':
    sys.exit(main())
