"""Which share of a voxel does the decoder give to the tissue that it is of?

A scan of a simulated person is made from a label map that the model has not seen, under the
default protocol at 3 T and with a little noise, and encoded whole as in use. The part of the
decoder that reads tissues then gives each voxel shares of tissues, which are how probable it takes
each for. Printed for each tissue: its voxels, the share that it gets in them on average, and the
tissue that gets most of the rest. Structures that look alike are one tissue (accumbens counts as
caudate); shares are means over targets of all contrasts.

With ``--drawn``, brains are drawn as in training instead (``--recipe tissues``): turned, bent,
with other tissue properties, of any contrast and quality, some with added lesions.

    python benchmarks/tissue_shares.py ../shared/data/labelmaps/training_seg_17.nii.gz \
        --model benchmarks/held_out
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from prompt_fidelity import whole_person

from tumsyn_bids.acquisition import CONTRASTS
from tumsyn_bids.greys import grey_levels
from tumsyn_bids.networks.model import Model, load_model
from tumsyn_bids.networks.store import find_model
from tumsyn_bids.physics.expected import BRAIN_SHARES, share_of
from tumsyn_bids.place import BrainFrame
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.simulation.generator import TISSUE_NAMES, load_tissue_volume, render
from tumsyn_bids.training.reading import (
    EncodedTissues,
    TissueRecipe,
    draw_sample,
    encode_tissues,
)
from tumsyn_bids.training.samples import Sample
from tumsyn_bids.training.step import UNKNOWN_TISSUE

NAMES = (*BRAIN_SHARES, 'no signal')
#: Standard deviation of the noise, of the brain's 98th percentile.
NOISE = 0.02


def main(argv: list[str] | None = None) -> int:
    """Print the table; return 0."""
    options = _parser().parse_args(argv)
    started = time.perf_counter()
    network = load_model(find_model(options.model)).network
    totals, counts = np.zeros((len(NAMES), len(NAMES))), np.zeros(len(NAMES), dtype=int)
    for brain in _brains(network, options):
        shares = mean_shares(network, brain)
        for index in range(len(NAMES)):
            inside = brain.tissue == index
            totals[index] += shares[inside].double().sum(dim=0).numpy()
            counts[index] += int(inside.sum())
    rows = [table_row(index, totals[index], counts[index]) for index in np.flatnonzero(counts)]
    for row in rows:
        sys.stdout.write(
            f'{row["tissue"]:20} {row["voxels"]:8d} voxels  {row["share"]:4.0%}   '
            f'then {row["next"]}, {row["next_share"]:.0%}\n'
        )
    sys.stdout.write(f'{time.perf_counter() - started:.0f} s\n')
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + '\n')
    return 0


def _brains(network: Model, options) -> Iterator[EncodedTissues]:
    recipe = TissueRecipe(voxels=options.voxels)
    rng = np.random.default_rng(options.seed)
    if not options.drawn:
        sample = plain_sample(rng, options.labelmap, options.source)
        yield encode_tissues(network, sample, network.config, rng, recipe)
        return
    volumes = [load_tissue_volume(options.labelmap)]
    for _ in range(options.drawn):
        sample = draw_sample(rng, volumes, recipe)
        yield encode_tissues(network, sample, network.config, rng, recipe)


def plain_sample(rng: np.random.Generator, labelmap: Path, contrast: str) -> Sample:
    """Return the person of a label map as is, scanned under a default protocol."""
    person, _ = whole_person(labelmap, 1)
    known = default_protocol(contrast, 3.0)
    source = render(person, known) + NOISE * rng.standard_normal(person.mask.shape)
    source = np.where(person.mask, source, 0).astype(np.float32)
    tissue = np.array([share_of(name) for name in TISSUE_NAMES])[person.tissue]
    return Sample(
        source=source,
        targets=source[None],
        mask=person.mask,
        prompts=(render_prompt(known),),
        source_prompt=render_prompt(known),
        acquisitions=(known,),
        place=BrainFrame.of(person.mask).places((0, 0, 0), source.shape),
        greys=grey_levels(source, person.mask),
        tissue=np.where(person.mask, tissue, UNKNOWN_TISSUE),
    )


@torch.inference_mode()
def mean_shares(network: Model, brain: EncodedTissues) -> torch.Tensor:
    """Return the shares of the voxels of a brain, mean over its targets, shape (K, tissues)."""
    read = network.synthesis.imnet.tissue_logits
    features, place = brain.features.float(), brain.place.float()
    return sum(
        read((features * gate)[None], place[None])[0].softmax(dim=-1) for gate in brain.gates
    ) / len(brain.gates)


def table_row(index: int, total: np.ndarray, count: int) -> dict:
    """Return the figures of a tissue from the sums of shares in its voxels."""
    shares = total / count
    others = np.delete(np.arange(len(NAMES)), index)
    second = others[shares[others].argmax()]
    return {
        'tissue': NAMES[index],
        'voxels': int(count),
        'share': float(shares[index]),
        'next': NAMES[second],
        'next_share': float(shares[second]),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('labelmap', type=Path, help='label map with FreeSurfer numbers')
    parser.add_argument('--model', default='embedded', help='"embedded" or a path')
    parser.add_argument('--source', choices=CONTRASTS, default='T1w', help='contrast of the scan')
    parser.add_argument('--drawn', type=int, default=0, metavar='N', help='brains, as in training')
    parser.add_argument('--voxels', type=int, default=200_000, help='looked at of a brain at most')
    parser.add_argument('--seed', type=int, default=0, help='of all that is drawn')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    return parser


if __name__ == '__main__':
    sys.exit(main())
