"""Score the synthesis of every contrast from every other one, beside what needs no network.

Reads co-registered, brain-only images of two people from a derivatives dataset. Of one person
every contrast is synthesized from every other and compared with the acquired image. The other
person serves to fit a look-up table, so that the table, like the network, has never seen the
answer. Images are compared as :mod:`tumsyn_bids.evaluation.metrics` says: each is first scaled by
its own 99.5th percentile, whatever made it.

Methods: ``model``; ``identity`` (the source itself); ``histogram`` (the source with the histogram
of the answer); ``table`` (look-up table fitted on the other person); ``table*`` (fitted on the
answer). A table maps scaled images to scaled images, and so could do without being scaled again,
which spares it what its missing brightest voxels cost: ``table raw`` and ``table* raw`` are those
figures, the second the best that any function of single grey values can do.

What the model gains over the tables fitted on the answer is printed with 95 % confidence intervals
over cubes of this one brain.

Example::

    python benchmarks/synthesis_quality.py --data ../shared/data/openms-mni \
        --subject sub-19 --fit-subject sub-07 --model embedded --json quality.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import permutations
from pathlib import Path

import nibabel as nb
import numpy as np

from tumsyn_bids.acquisition import CONTRASTS, Acquisition
from tumsyn_bids.bids.participants import read_person
from tumsyn_bids.evaluation.baselines import fit_lut, match_histogram
from tumsyn_bids.evaluation.metrics import gain_intervals, prepare, score_prepared
from tumsyn_bids.grids import Grid
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.targets import default_target, resolve_target

#: Shown first: the pairs that published results and our floor speak of.
MAIN_PAIRS = (('T1w', 'T2w'), ('T2w', 'T1w'), ('T1w', 'FLAIR'), ('FLAIR', 'T1w'))
COLUMNS = ('psnr_whole', 'psnr_brain', 'ssim_whole', 'ssim_brain', 'pearson', 'mae')


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if the model loses to the other person's table on a main pair."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    images, mask = read_subject(options.data, options.subject)
    fit_images, fit_mask = read_subject(options.data, options.fit_subject)
    arrays, fit_arrays = _prepared(images, mask), _prepared(fit_images, fit_mask)
    pairs = _pairs(arrays.keys() & fit_arrays.keys(), options.pairs)
    predicted = synthesize(options, images, mask, pairs)
    rows = []
    for source, target in pairs:
        answer = arrays[target]
        tables = {
            'table': fit_lut(fit_arrays[source], fit_arrays[target], fit_mask),
            'table*': fit_lut(arrays[source], answer, mask),
        }
        raw = {name: table.apply(arrays[source], mask) for name, table in tables.items()}
        methods = {
            'model': predicted[source, target],
            'identity': arrays[source],
            'histogram': match_histogram(arrays[source], answer, mask),
            **{name: prepare(image, mask) for name, image in raw.items()},
            **{f'{name} raw': image for name, image in raw.items()},
        }
        for method, image in methods.items():
            row = {'source': source, 'target': target, 'method': method}
            row.update(score_prepared(image, answer, mask))
            if method.startswith('table*'):
                row['gain'] = gain_intervals(methods['model'], image, answer, mask)
            rows.append(row)
    _report(rows, options, time.perf_counter() - started)
    return 0 if beats(rows, 'table') else 1


def read_subject(data: Path, label: str) -> tuple[dict[str, nb.Nifti1Image], np.ndarray]:
    """Return the brain-only images of a person by contrast, and the brain: where any is not 0."""
    images = {}
    for path in sorted((data / label).rglob('*_desc-brain_*.nii.gz')):
        suffix = path.name.removesuffix('.nii.gz').rpartition('_')[2]
        name = 'T1CE' if suffix == 'T1w' and '_ce-' in path.name else suffix
        if name in CONTRASTS:
            images[name] = nb.load(path)
    if len(images) < 2:
        sys.exit(f'{data / label}: holds fewer than two *_desc-brain_* images of known contrast')
    mask = np.logical_or.reduce([np.asarray(img.dataobj) != 0 for img in images.values()])
    return images, mask


def synthesize(options, images, mask, pairs) -> dict[tuple[str, str], np.ndarray]:
    """Synthesize the target of every pair of contrasts; a source is encoded once."""
    synthesizer = Synthesizer.load(options.model, device=options.device)
    person = _person(options.data, options.subject)
    reference = next(iter(images.values()))
    mask_img = nb.Nifti1Image(mask.astype(np.uint8), reference.affine)
    results = {}
    for source in {source for source, _ in pairs}:
        known = person.replace(contrast=source, field_strength=options.field_strength)
        encoded = synthesizer.encode(images[source], mask=mask_img, acquisition=known)
        for target in [target for other, target in pairs if other == source]:
            wanted = resolve_target(
                default_target(target), subject=person, modal=None, source=known
            )
            prompt = render_prompt(wanted.acquisition)
            decoded = synthesizer.decode(encoded, prompt, Grid.of(reference))
            results[source, target] = prepare(decoded, mask)
    return results


def beats(rows: list[dict], method: str) -> bool:
    """Whether the model beats a method on the main pairs, in PSNR and SSIM."""
    by_key = {(row['source'], row['target'], row['method']): row for row in rows}
    return all(
        by_key[(*pair, 'model')][figure] > by_key[(*pair, method)][figure]
        for pair in MAIN_PAIRS
        for figure in ('psnr_whole', 'psnr_brain', 'ssim_whole', 'ssim_brain')
        if (*pair, 'model') in by_key
    )


def _prepared(images, mask) -> dict[str, np.ndarray]:
    return {name: prepare(img.get_fdata(dtype=np.float32), mask) for name, img in images.items()}


def _pairs(contrasts, which: str) -> list[tuple[str, str]]:
    found = list(permutations(sorted(contrasts), 2))
    main_pairs = [pair for pair in MAIN_PAIRS if pair in found]
    return main_pairs if which == 'main' else main_pairs + sorted({*found} - {*main_pairs})


def _person(data: Path, label: str) -> Acquisition:
    age, sex, _ = read_person(data, label.removeprefix('sub-'), None)
    return Acquisition(age=age, sex=sex)


def _report(rows: list[dict], options, seconds: float) -> None:
    write = sys.stdout.write
    write(f'{"source":8}{"target":8}{"method":11}' + ''.join(f'{c:>12}' for c in COLUMNS) + '\n')
    for row in rows:
        figures = ''.join(f'{row[column]:12.3f}' for column in COLUMNS)
        write(f'{row["source"]:8}{row["target"]:8}{row["method"]:11}{figures}\n')
    write('Gains of the model, with 95 % intervals over cubes of this brain:\n')
    for row in rows:
        if 'gain' in row:
            gains = '  '.join(
                f'{name} {gain:+.3f} ({low:+.3f} to {high:+.3f})'
                for name, (gain, low, high) in row['gain'].items()
            )
            write(f'{row["source"]:8}{row["target"]:8}over {row["method"]:11}{gains}\n')
    for method in ('table', 'table raw', 'table*', 'table* raw'):
        verdict = 'beats' if beats(rows, method) else 'DOES NOT BEAT'
        write(f'The model {verdict} "{method}" on the main pairs.\n')
    write(f'{seconds:.0f} s.\n')
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(json.dumps({'settings': settings, 'rows': rows}, indent=2) + '\n')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, help='derivatives dataset')
    parser.add_argument('--subject', required=True, help='the person to synthesize, e.g. sub-19')
    parser.add_argument('--fit-subject', required=True, help='the person to fit the table on')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    parser.add_argument(
        '--pairs', choices=('all', 'main'), default='all', help='main: the four of our floor'
    )
    parser.add_argument(
        '--field-strength', type=float, help='of the scans, in tesla, where it is known'
    )
    parser.add_argument('--json', type=Path, help='also write all figures to this file')
    return parser


if __name__ == '__main__':
    sys.exit(main())
