"""Time and peak memory of the full-size published network on one 60³ tile.

    python benchmarks/full_size_tile.py [--device cpu] [--precision float32]

Weights are random: neither time nor memory depends on them. The tile goes the way that a scan
goes in the app; its brain is the 44³ voxels that are left beside the margin.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import nibabel as nb
import numpy as np
import torch

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.grids import Grid
from tumsyn_bids.networks.model import LoadedModel, Model
from tumsyn_bids.networks.registry import get_config
from tumsyn_bids.prompt import render_prompt
from tumsyn_bids.synthesis.synthesizer import Synthesizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', default='float32', choices=('float32', 'bfloat16'))
    args = parser.parse_args()
    network = Model(get_config('official')).eval()
    count = sum(value.numel() for value in network.synthesis.parameters())
    loaded = LoadedModel(network, 'official', 'random', '')
    synthesizer = Synthesizer(loaded, torch.device(args.device), args.precision)
    brain = np.random.default_rng(0).random((44, 44, 44), dtype=np.float32) + 0.5
    image = nb.Nifti1Image(brain, np.eye(4))
    mask = nb.Nifti1Image(np.ones(brain.shape, np.uint8), np.eye(4))
    start = time.monotonic()
    encoded = synthesizer.encode(image, mask=mask)
    encoding = time.monotonic() - start
    made = synthesizer.decode(encoded, render_prompt(Acquisition('T2w')), Grid.of(image))
    total = time.monotonic() - start
    assert encoded.grid.shape == (60, 60, 60)
    assert len(encoded.tiles) == 1
    assert np.isfinite(made).all()
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f'parameters of the synthesis network: {count:,}')
    print(f'encoding: {encoding:.0f} s; one target: {total - encoding:.0f} s')
    print(f'peak memory of the process: {peak:.1f} GB')
    if args.device != 'cpu':
        print(f'peak memory of the GPU: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB')


if __name__ == '__main__':
    sys.exit(main())
