"""A GPU that is too small: the same image from smaller tiles, or a clear end."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.errors import SessionError
from tumsyn_bids.grids import Grid
from tumsyn_bids.synthesis.memory import with_tiles_that_fit
from tumsyn_bids.synthesis.synthesizer import Synthesizer


class SmallGpu:
    """Stands in for the encoder: tiles above a size do not fit."""

    def __init__(self, encode, largest):
        self.encode, self.largest, self.seen = encode, largest, []

    def __call__(self, source, text):
        self.seen.append(max(source.shape))
        if max(source.shape) > self.largest:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return self.encode(source, text)


@pytest.fixture
def head():
    image = np.random.default_rng(0).random((100, 60, 60), dtype=np.float32) + 0.5
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    return nb.Nifti1Image(image, affine), nb.Nifti1Image(np.ones(image.shape, 'u1'), affine)


@pytest.fixture
def synthesizer(tiny_model):
    made = Synthesizer.load(tiny_model, device='cpu', precision='float32')
    made.config = replace(made.config, tile=112)
    with torch.no_grad():  # random weights may give an image that is negative and thus black
        made._network.synthesis.imnet.layers[-1].bias.fill_(1.0)
    return made


def make(head):
    image, mask = head
    return lambda synthesizer: synthesizer.decode(
        synthesizer.encode(image, mask=mask), 'Modality: T2w', Grid.of(image)
    )


def test_smaller_tiles_give_the_same_image_and_say_so(head, synthesizer, monkeypatch):
    whole, nothing = with_tiles_that_fit(synthesizer, make(head))
    assert nothing == []
    gpu = SmallGpu(synthesizer._features, largest=60)
    monkeypatch.setattr(synthesizer, '_features', gpu)
    pieces, (warning,) = with_tiles_that_fit(synthesizer, make(head))
    assert 'tiles of 56 instead of 112' in warning
    assert max(gpu.seen) > 60
    assert synthesizer.config.tile == 112
    assert whole.mean() > 100
    assert np.abs(pieces - whole).mean() < 0.02 * whole.mean()


def test_what_fits_into_no_tile_ends_with_a_remedy(head, synthesizer, monkeypatch):
    monkeypatch.setattr(synthesizer, '_features', SmallGpu(synthesizer._features, largest=10))
    with pytest.raises(SessionError, match='too little memory') as caught:
        with_tiles_that_fit(synthesizer, make(head))
    assert '--device cpu' in str(caught.value)
