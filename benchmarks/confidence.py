"""Do the figures of confidence know how wrong an image is?

Synthetic images are made from good scans, from scans that are noisy, thick-sliced, shaded or of
which the metadata name the wrong contrast, and, with ``--data``, from real scans of a person that
the model was not trained on. Each is compared with the truth, and its figures of confidence
(:mod:`tumsyn_bids.synthesis.confidence`) are computed without it. Printed: one line an image, then
the rank correlation (Spearman) of each figure with the true error over all images, and over those
of each target, and for each threshold of the app which part of the good and the bad images falls
on either side; an image is bad whose correlation with the truth inside the brain is below 0.8.

    python benchmarks/confidence.py --data ../shared/data/openms-mni --subject sub-19
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np
from phantom_quality import Head, protocol
from scipy import ndimage, stats
from synthesis_quality import read_subject

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.evaluation.metrics import pearson, prepare, psnr
from tumsyn_bids.grids import Grid
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.scanner import as_image
from tumsyn_bids.synthesis.confidence import THRESHOLDS, Examiner
from tumsyn_bids.synthesis.synthesizer import Synthesizer

TARGETS = ('T1w', 'T2w', 'FLAIR')
UNIT = (1.0, 1.0, 1.0)
GOOD = 0.8


def main(argv: list[str] | None = None) -> int:
    """Print the table and the correlations."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    synthesizer = Synthesizer.load(options.model, device=options.device)
    rows = []
    for row in _rows(synthesizer, options):
        rows.append(row)
        sys.stdout.write('  '.join(_cell(value) for value in row.values()) + '\n')
        sys.stdout.flush()
    _report(rows)
    sys.stdout.write(f'{time.perf_counter() - started:.0f} s\n')
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + '\n')
    return 0


def _rows(synthesizer, options):
    head = Head.draw(options.seed)
    mask = head.mask(UNIT)
    truth = {name: head.image(name, UNIT).get_fdata(dtype=np.float32) for name in TARGETS}
    for name in TARGETS:
        for condition, image, claimed in _phantom_sources(head, name, truth):
            yield from _images(
                synthesizer, condition, name, image, claimed, truth, mask, head.grid
            )
    if options.data:
        images, mask = read_subject(options.data, options.subject)
        grid = Grid.of(next(iter(images.values())))
        arrays = {name: images[name].get_fdata(dtype=np.float32) for name in TARGETS}
        for name in TARGETS:
            known = default_protocol(name, 3.0)
            for condition, array in _spoiled(arrays[name], mask):
                image = nb.Nifti1Image(array, grid.affine)
                label = f'real, {condition}'
                yield from _images(synthesizer, label, name, image, known, arrays, mask, grid)


def _phantom_sources(head: Head, name: str, truth):
    mask = head.mask(UNIT)
    known = protocol(name)
    for condition, array in _spoiled(truth[name], mask):
        yield condition, as_image(array, head.grid), known
    yield '5 mm slices', head.image(name, (1.0, 1.0, 5.0), 0.02), known
    other = TARGETS[(TARGETS.index(name) + 1) % len(TARGETS)]
    yield f'said to be {other}', head.image(name, UNIT, 0.02), protocol(other)


def _spoiled(image: np.ndarray, mask: np.ndarray):
    rng = np.random.default_rng(0)
    bright = np.percentile(image[mask], 98)
    for condition, share in (('as it is', 0.02), ('noise 10 %', 0.1), ('noise 25 %', 0.25)):
        noisy = image + share * bright * rng.standard_normal(image.shape)
        yield condition, np.where(mask, np.abs(noisy), 0).astype(np.float32)
    shade = ndimage.zoom(rng.normal(0, 0.35, (3, 3, 3)), np.array(image.shape) / 3, order=1)
    yield 'shaded', (image * np.exp(shade)).astype(np.float32)


def _images(synthesizer, condition, name, image, claimed: Acquisition, truth, mask, grid):
    mask_img = nb.Nifti1Image(mask.astype(np.uint8), grid.affine)
    encoded = synthesizer.encode(image, mask=mask_img, acquisition=claimed)
    examiner = Examiner(synthesizer, encoded, claimed)
    for target in TARGETS:
        if target == name:
            continue
        wanted = protocol(target)
        made = synthesizer.decode(encoded, render_prompt(wanted), grid)
        figures = examiner.examine(nb.Nifti1Image(made, grid.affine), wanted)
        answer = prepare(truth[target], mask)
        yield {
            'condition': condition,
            'from': name,
            'to': target,
            **figures.to_dict(),
            'true psnr_brain': psnr(prepare(made, mask), answer, mask),
            'true pearson': pearson(made, truth[target], mask),
        }


def values_of(rows: list[dict], name: str) -> np.ndarray:
    """Return a figure of confidence of all images; of one with few slices it may be unknown."""
    return np.array([row.get(name, np.nan) for row in rows])


def rank_correlation(values: np.ndarray, truths: np.ndarray) -> float:
    """Return Spearman's correlation over the images of which the figure is known."""
    return stats.spearmanr(values, truths, nan_policy='omit').statistic


def _report(rows: list[dict]) -> None:
    write = sys.stdout.write
    for figure, (warn, fail, sign) in THRESHOLDS.items():
        values = values_of(rows, figure)
        truths = np.array([row['true pearson'] for row in rows])
        error = np.array([row['true psnr_brain'] for row in rows])
        overall = [rank_correlation(values, known) for known in (truths, error)]
        each = [
            rank_correlation(values[index], truths[index])
            for index in ([row['to'] == target for row in rows] for target in TARGETS)
        ]
        write(
            f'{figure:18} rank correlation with Pearson {overall[0]:5.2f}, with PSNR '
            f'{overall[1]:5.2f}; with Pearson, by target: '
            + ', '.join(f'{name} {value:.2f}' for name, value in zip(TARGETS, each, strict=True))
            + '\n'
        )
        good = truths >= GOOD
        for word, limit in (('warn', warn), ('fail', fail)):
            flagged = sign * values < sign * limit
            write(
                f'{"":18} {word} at {limit:g}: {(flagged & ~good).sum()} of {(~good).sum()} bad '
                f'images, {(flagged & good).sum()} of {good.sum()} good ones\n'
            )


def _cell(value) -> str:
    return f'{value:18}' if isinstance(value, str) else f'{value:7.3f}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, help='derivatives dataset of real brains')
    parser.add_argument('--subject', default='sub-19', help='of that dataset')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--seed', type=int, default=5, help='of the simulated person')
    parser.add_argument('--json', type=Path, help='also write all figures to this file')
    return parser


if __name__ == '__main__':
    sys.exit(main())
