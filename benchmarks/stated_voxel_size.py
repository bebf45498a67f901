"""Does the voxel size in a prompt change what an image looks like, or its sharpness alone?

A contrast that a session lacks is asked for at 1 mm, whatever its scans resolve. If thick slices
came from other scanners than thin ones when the model was trained, it may have learned the voxel
size as the name of a scanner, and what it makes of a thick-slice session at 1 mm looks like
another scanner's images. Here every contrast of each session is made from every other one twice,
asked for at 1 mm and at the session's own voxel size, on the same grid; the correlation with the
acquired image inside the brain should be about the same.

    tumsyn-bids ds-openms OUT participant
    python benchmarks/stated_voxel_size.py OUT --subject sub-19 --model benchmarks/held_out
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nibabel as nb
import numpy as np

from tumsyn_bids.evaluation.metrics import pearson
from tumsyn_bids.grids import Grid
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.synthesis.synthesizer import Synthesizer
from tumsyn_bids.training.people import PairedSubject, load_paired_subjects


def main(argv: list[str] | None = None) -> int:
    """Print a row for each session and pair of contrasts."""
    options = _parser().parse_args(argv)
    synthesizer = Synthesizer.load(options.model, device=options.device)
    for person in load_paired_subjects(options.derivatives):
        if person.label.partition('_')[0] in options.subject:
            for source, target, fine, own in correlations(synthesizer, person):
                sys.stdout.write(
                    f'{person.label:14} {source:6} {target:6} at 1 mm {fine:.3f}  '
                    f'at {"x".join(f"{edge:g}" for edge in person.voxel_size)} mm {own:.3f}\n'
                )
                sys.stdout.flush()
    return 0


def correlations(synthesizer: Synthesizer, person: PairedSubject):
    """Yield source, target, and the correlations for 1 mm and for the session's own voxel size."""
    mask = nb.Nifti1Image(person.mask.astype(np.uint8), np.eye(4))
    for source, image in person.images.items():
        scan = nb.Nifti1Image(image, np.eye(4))
        encoded = synthesizer.encode(scan, mask=mask, acquisition=person.acquisition(source))
        for target in [name for name in person.images if name != source]:
            found = []
            for size in ((1.0, 1.0, 1.0), person.voxel_size):
                known = {'age': person.person.age, 'sex': person.person.sex, 'voxel_size': size}
                prompt = render_prompt(default_protocol(target, None).replace(**known))
                made = synthesizer.decode(encoded, prompt, Grid.of(mask))
                found.append(pearson(made, person.images[target], person.mask))
            yield source, target, *found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('derivatives', type=Path, help='output directory of tumsyn-bids')
    parser.add_argument('--subject', nargs='+', required=True, help='such as sub-19')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    return parser


if __name__ == '__main__':
    sys.exit(main())
