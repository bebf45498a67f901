"""Does the prompt mean what it says? Sweep its parameters and compare with the sequence equations.

A T1w of a simulated person is made from a label map that the model has not seen. From it each
target contrast is synthesized, in the axial slab that holds the deep grey matter, with one
parameter of the prompt moved through its range, all others at the default protocol. Of each
image the median of every tissue is taken, relative to that of white matter, in the synthetic image
and in the one that the equations give for the same person.

Printed for each sweep, over all tissues and values: the correlation of these ratios (``level``),
that of their changes along the sweep (``change``), how large the synthetic changes are for true
ones of 1 (``slope``), and in how many of the tissues that truly change by more than 5 % they
change to the right side (``sign``). Last, how much age and sex alone change the ratios.

    python benchmarks/prompt_fidelity.py ../shared/data/labelmaps/training_seg_17.nii.gz \
        --figure docs/figures/prompt_fidelity.png
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import nibabel as nb
import numpy as np

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.grids import Grid
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.generator import (
    OUTSIDE_BRAIN,
    TISSUE_NAMES,
    Subject,
    load_tissue_volume,
    render,
)
from tumsyn_bids.synthesis.synthesizer import Synthesizer

TISSUES = ('white_matter', 'cortex', 'caudate', 'putamen', 'thalamus', 'csf')
REFERENCE = 'white_matter'
#: Contrast, field of the prompt, its values (seconds, degrees, tesla), and what else differs from
#: the default protocol.
SWEEPS = (
    ('T1w', 'inversion_time', (0.7, 0.8, 0.9, 1.0, 1.1, 1.2), {}),
    ('T1w', 'field_strength', (1.5, 2.0, 3.0, 4.5, 7.0), {}),
    (
        'T1w',
        'flip_angle',
        (10, 15, 20, 25, 30),
        {'repetition_time': 0.02, 'echo_time': 0.004, 'inversion_time': None},
    ),
    ('T2w', 'echo_time', (0.07, 0.08, 0.09, 0.1, 0.115, 0.13), {}),
    ('T2w', 'repetition_time', (2.5, 3.5, 5.0, 7.0, 9.0), {}),
    (
        'FLAIR',
        'echo_time',
        (0.08, 0.1, 0.12, 0.15),
        {'repetition_time': 9.0, 'inversion_time': 2.5},
    ),
    (
        'FLAIR',
        'inversion_time',
        (2.3, 2.4, 2.5, 2.6, 2.7),
        {'repetition_time': 9.0, 'echo_time': 0.12},
    ),
    ('PDw', 'echo_time', (0.008, 0.015, 0.025, 0.035), {}),
    ('PDw', 'repetition_time', (2.0, 3.0, 4.0, 5.5), {}),
    ('T2starw', 'echo_time', (0.012, 0.018, 0.024, 0.03), {}),
    ('T2starw', 'flip_angle', (15, 20, 25, 30), {}),
)
PERSON = {'age': 45.0, 'sex': 'F'}


def main(argv: list[str] | None = None) -> int:
    """Run all sweeps; 1 if the changes of one correlate by less than 0.9."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    person, slab = whole_person(options.labelmap, options.slab)
    subject = part_of(person, slab)
    rows = [
        sweep_row(subject, *sweep, means) for sweep, means in _synthesize(options, person, slab)
    ]
    for row in rows:
        sys.stdout.write(
            f'{row["contrast"]:8} {row["parameter"]:16} level {row["level"]:6.3f}  change '
            f'{row["change"]:6.3f}  slope {row["slope"]:5.2f}  sign {row["sign"]}\n'
        )
    sys.stdout.write(f'{time.perf_counter() - started:.0f} s\n')
    if options.figure:
        draw(rows, options.figure)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + '\n')
    return int(any(row['change'] < 0.9 for row in rows))


def whole_person(labelmap: Path, thickness: int) -> tuple[Subject, tuple[slice, ...]]:
    """Return the person of a label map, without any noise, and where the deep grey matter is."""
    volume = load_tissue_volume(labelmap)
    thalamus = np.argwhere(volume.tissue == TISSUE_NAMES.index('thalamus'))
    first = max(int(thalamus[:, 2].mean()) - thickness // 2, 0)
    slab = (slice(None), slice(None), slice(first, first + thickness))
    tissue, n_tissues = volume.tissue, len(TISSUE_NAMES)
    keys = ('t1', 't2', 't2star', 'pd')
    outside = [TISSUE_NAMES.index(name) for name in OUTSIDE_BRAIN]
    mask = (volume.distance <= 3) & ~np.isin(tissue, outside)
    fractions = np.bincount(tissue[mask], minlength=n_tissues) / mask.sum()
    person = Subject(
        tissue,
        mask,
        {key: np.ones(n_tissues) for key in keys},
        {key: np.ones(tissue.shape, np.float32) for key in keys},
        fractions,
    )
    return person, slab


def part_of(person: Subject, box: tuple[slice, ...]) -> Subject:
    """Return the part of a person inside a box, as bright as in the whole brain."""
    return Subject(
        person.tissue[box],
        person.mask[box],
        person.factors,
        {key: values[box] for key, values in person.texture.items()},
        person.fractions,
    )


def tissue_ratios(image: np.ndarray, subject: Subject) -> np.ndarray:
    """Return the median of each of :data:`TISSUES` over that of white matter."""
    medians = {}
    for name in TISSUES:
        inside = subject.mask & (subject.tissue == TISSUE_NAMES.index(name))
        medians[name] = float(np.median(image[inside]))
    return np.array([medians[name] / medians[REFERENCE] for name in TISSUES if name != REFERENCE])


def _protocol(contrast: str, changes: dict) -> Acquisition:
    return default_protocol(contrast, 3.0).replace(**PERSON, **changes)


def _synthesize(options, person: Subject, slab: tuple[slice, ...]):
    subject = part_of(person, slab)
    affine = np.eye(4)
    rng = np.random.default_rng(0)
    known = _protocol('T1w', {})
    source = render(person, known) + 0.02 * rng.standard_normal(person.mask.shape)
    image = nb.Nifti1Image(np.where(person.mask, source, 0).astype(np.float32), affine)
    mask = nb.Nifti1Image(person.mask.astype(np.uint8), affine)
    grid = Grid.of(image).cropped([part.start or 0 for part in slab], subject.mask.shape)
    synthesizer = Synthesizer.load(options.model, device=options.device)
    encoded = synthesizer.encode(image, mask=mask, acquisition=known)

    def ratios(acquisition: Acquisition) -> np.ndarray:
        made = synthesizer.decode(encoded, render_prompt(acquisition), grid)
        return tissue_ratios(made, subject)

    for contrast, parameter, values, others in SWEEPS:
        protocols = [_protocol(contrast, {**others, parameter: value}) for value in values]
        yield (contrast, parameter, protocols), [ratios(protocol) for protocol in protocols]
    people = [{'age': age, 'sex': sex} for age, sex in ((20.0, 'F'), (45.0, 'M'), (80.0, 'M'))]
    for contrast in ('T1w', 'T2w', 'FLAIR'):
        base = ratios(_protocol(contrast, {}))
        changed = [ratios(_protocol(contrast, {}).replace(**person)) for person in people]
        largest = np.abs(np.array(changed) / base - 1).max()
        sys.stdout.write(f'{contrast:8} age and sex alone change the ratios by {largest:.1%}\n')


def sweep_row(subject: Subject, contrast, parameter, protocols, synthetic) -> dict:
    """Return the figures of one sweep."""
    true = np.array([tissue_ratios(render(subject, protocol), subject) for protocol in protocols])
    made = np.array(synthetic)
    true_change, made_change = true - true.mean(axis=0), made - made.mean(axis=0)
    moved = np.abs(true[-1] / true[0] - 1) > 0.05
    right = np.sign(true[-1] - true[0]) == np.sign(made[-1] - made[0])
    return {
        'contrast': contrast,
        'parameter': parameter,
        'level': float(np.corrcoef(true.ravel(), made.ravel())[0, 1]),
        'change': float(np.corrcoef(true_change.ravel(), made_change.ravel())[0, 1]),
        'slope': float((true_change * made_change).sum() / np.square(true_change).sum()),
        'values': [getattr(protocol, parameter) for protocol in protocols],
        'sign': f'{int((right & moved).sum())}/{int(moved.sum())}',
        'true': true.tolist(),
        'synthetic': made.tolist(),
    }


def draw(rows: list[dict], path: Path) -> None:
    """Draw each sweep: lines are the equations, dots the synthetic images."""
    from matplotlib.figure import Figure

    columns = 4
    figure = Figure(figsize=(13, 8.5), layout='constrained')
    axes = figure.subplots(-(-len(rows) // columns), columns).ravel()
    names = [name.replace('_', ' ') for name in TISSUES if name != REFERENCE]
    for axis, row in zip(axes, rows, strict=False):
        for index, name in enumerate(names):
            true, made = (np.array(row[key])[:, index] for key in ('true', 'synthetic'))
            (line,) = axis.plot(row['values'], true, label=name)
            axis.plot(row['values'], made, 'o', color=line.get_color(), markersize=4)
        axis.set_title(f'{row["contrast"]}: {row["parameter"].replace("_", " ")}', fontsize=10)
        axis.tick_params(labelsize=8)
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    axes[len(rows)].legend(handles, labels, loc='center', frameon=False)
    figure.supylabel('brightness relative to white matter', fontsize=10)
    figure.savefig(path, dpi=90)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('labelmap', type=Path, help='label map with FreeSurfer numbers, 1 mm')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--slab', type=int, default=48, help='thickness in mm that is looked at')
    parser.add_argument('--json', type=Path, help='also write all figures to this file')
    parser.add_argument('--figure', type=Path, help='also draw the sweeps (PNG)')
    return parser


if __name__ == '__main__':
    sys.exit(main())
