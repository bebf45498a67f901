"""Pictures of what the model gets wrong, on a simulated person whose truth is known.

Lesions: white matter lesions, whose T1w is the source, in the synthetic FLAIR and in the true one.
Enhancement: a lesion with a broken barrier, which nobody can see to be so without contrast agent,
in the synthetic and in the true contrast-enhanced T1w. Printed is how bright the lesions are
relative to white matter, in the synthetic and in the true image.

    python benchmarks/failures.py docs/figures/failures.png
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import nibabel as nb
import numpy as np
from matplotlib.figure import Figure
from phantom_quality import NOISE, Head, encode, protocol

from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.simulation.anatomy import TISSUE_NAMES, with_lesions
from tumsyn_bids.simulation.scanner import as_image
from tumsyn_bids.synthesis.synthesizer import Synthesizer

#: Centre and radius in mm of the template space, all in one axial plane.
SPOTS = ((-27, -30, 24, 5.0), (28, -34, 24, 4.0), (24, 18, 24, 3.0), (-25, 12, 24, 2.5))
#: What takes the place of the first spot: its times resemble those of inflamed tissue, and it
#: takes up contrast agent.
BROKEN_BARRIER = 'choroid_plexus'
UNIT = (1.0, 1.0, 1.0)


def main(argv: list[str] | None = None) -> int:
    """Draw the figure and print the brightness of the lesions."""
    options = _parser().parse_args(argv)
    healthy = Head.draw(options.seed)
    lesions = replace(healthy, anatomy=with_lesions(healthy.anatomy, SPOTS))
    enhancing = replace(healthy, anatomy=_with_broken_barrier(healthy.anatomy))
    synthesizer = Synthesizer.load(options.model, device=options.device)
    rows = [
        (title, head, target, _images(synthesizer, head, target))
        for title, head, target in (
            ('lesions', lesions, 'FLAIR'),
            ('enhancement', enhancing, 'T1CE'),
        )
    ]
    for title, head, target, (_, made, true) in rows:
        spot, white = _masks(head, healthy)
        ratios = [float(image[spot].mean() / np.median(image[white])) for image in (made, true)]
        sys.stdout.write(
            f'{title:12} {target:6} lesion to white matter: synthetic {ratios[0]:.2f}, '
            f'true {ratios[1]:.2f}\n'
        )
    _draw(rows, healthy, options.figure)
    return 0


def _with_broken_barrier(anatomy):
    changed = with_lesions(anatomy, SPOTS[:1])
    lesion, other = (TISSUE_NAMES.index(n) for n in ('white_matter_lesion', BROKEN_BARRIER))
    tissues = changed.tissues.copy()
    tissues[tissues == lesion] = other
    return replace(changed, tissues=tissues)


def _images(synthesizer: Synthesizer, head: Head, target: str) -> tuple[np.ndarray, ...]:
    """Return source, synthetic and true image on one grid."""
    source = head.image('T1w', UNIT, NOISE)
    encoded = encode(synthesizer, head, source, 'T1w')
    made = synthesizer.decode(encoded, render_prompt(protocol(target)), head.grid)
    return source.get_fdata(), made, head.image(target, UNIT).get_fdata()


def _masks(head: Head, healthy: Head) -> tuple[np.ndarray, np.ndarray]:
    view = head.view(UNIT)
    changed = (head.anatomy.tissues != healthy.anatomy.tissues).any(axis=0)
    white = head.anatomy.fraction('white_matter') > 0.95
    return tuple(view.nearest(part.astype(np.uint8)) > 0 for part in (changed, white))


def _draw(rows, healthy: Head, path: Path) -> None:
    spot, _ = _masks(rows[0][1], healthy)
    cut = int(np.argmax(spot.sum(axis=(0, 1))))
    figure = Figure(figsize=(7.5, 5.6), layout='constrained', facecolor='black')
    for axes, (title, _, target, images) in zip(figure.subplots(2, 3), rows, strict=True):
        names = ('T1w (source)', f'synthetic {target}', f'true {target}')
        for axis, image, name in zip(axes, images, names, strict=True):
            img = nb.as_closest_canonical(as_image(image.astype(np.float32), healthy.grid))
            tile = np.asarray(img.dataobj)[:, :, cut].T
            axis.imshow(tile, cmap='gray', origin='lower', vmin=0, vmax=tile.max())
            axis.set_title(f'{title}: {name}', color='white', fontsize=9)
            axis.set_axis_off()
    with mpl.rc_context({'savefig.facecolor': 'black'}):
        figure.savefig(path, dpi=110)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('figure', type=Path, help='where to draw it (PNG)')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--seed', type=int, default=5, help='of the person')
    return parser


if __name__ == '__main__':
    sys.exit(main())
