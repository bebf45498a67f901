"""Growing and shrinking masks by a distance, against distance transforms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from tumsyn_bids.anatomy.intensity import grown, shrunk, signed_distance


@pytest.fixture(scope='module')
def mask():
    noise = np.random.default_rng(0).normal(size=(31, 28, 25))
    return ndimage.gaussian_filter(noise, 2) > 0.05


@pytest.mark.parametrize('zooms', [1.5, (0.6, 0.6, 3.0), (3.0, 1.0, 1.2)])
@pytest.mark.parametrize('distance', [1.3, 3.0, 5.0])
def test_masks_grow_and_shrink_as_their_distances_say(mask, zooms, distance):
    away = signed_distance(mask, zooms)
    assert np.array_equal(grown(mask, distance, zooms), away > -distance)
    assert np.array_equal(shrunk(mask, distance, zooms), away > distance)


def test_nothing_does_not_grow_and_all_does_not_shrink():
    nothing = np.zeros((4, 5, 6), dtype=bool)
    assert not grown(nothing, 3.0, 1.0).any()
    assert shrunk(~nothing, 3.0, 1.0).all()
