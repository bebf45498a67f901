"""Lesions of the white matter: where they lie, and the same in all contrasts of a person."""

from __future__ import annotations

import numpy as np
import pytest

from tumsyn_bids.simulation.lesions import (
    distance_to_ventricles,
    draw_lesions,
    paint_lesions,
)


@pytest.fixture
def white():
    """Return a ball of white matter, 12 voxels in radius."""
    axis = np.arange(32) - 15.5
    return np.add.outer(np.add.outer(axis**2, axis**2), axis**2) < 12**2


@pytest.fixture
def ventricle_mm():
    """Return the distance to a ventricle, a rod along the third axis."""
    axis = np.arange(32) - 15.5
    return np.broadcast_to(np.sqrt(np.add.outer(axis**2, axis**2))[..., None], (32, 32, 32))


def test_lesions_stay_in_white_matter_and_vary_in_load(white, ventricle_mm):
    loads = []
    for seed in range(20):
        lesions = draw_lesions(np.random.default_rng(seed), white, ventricle_mm)
        assert not (lesions & ~white).any()
        loads.append(lesions.sum() / white.sum())
    assert min(loads) < 0.02
    assert max(loads) > 0.15
    assert max(loads) <= 0.34


def test_lesions_gather_around_the_ventricles(white, ventricle_mm):
    near, far = white & (ventricle_mm < 4), white & (ventricle_mm > 8)
    counts = np.zeros(2)
    for seed in range(40):
        lesions = draw_lesions(np.random.default_rng(seed), white, ventricle_mm)
        counts += [lesions[near].mean(), lesions[far].mean()]
    assert counts[0] > 2 * counts[1] > 0


def test_no_white_matter_no_lesions():
    empty = np.zeros((8, 8, 8), bool)
    assert not draw_lesions(np.random.default_rng(0), empty, np.zeros(empty.shape)).any()


def test_distance_to_ventricles():
    ventricles = np.zeros((300, 3, 3), bool)
    assert (distance_to_ventricles(ventricles) == 255).all()
    ventricles[0] = True
    assert distance_to_ventricles(ventricles)[[0, 7, 299], 1, 1].tolist() == [0, 7, 255]


def test_painted_lesions_have_the_signs_of_their_contrasts(white):
    lesions = np.zeros_like(white)
    lesions[12:20, 12:20, 12:20] = True
    healthy = {'T1w': 0.9, 'T2w': 0.35, 'FLAIR': 0.7}
    images = [np.where(white, level, 0).astype(np.float32) for level in healthy.values()]
    t1w, t2w, flair = paint_lesions(np.random.default_rng(1), images, list(healthy), lesions)
    centre = (slice(14, 18),) * 3
    assert t1w[centre].mean() < 0.8
    assert 0.45 < t2w[centre].mean() < 1
    assert flair[centre].mean() > 0.95
    far = white & ~np.pad(np.ones((20, 20, 20), bool), 6)
    for before, after in zip(images, (t1w, t2w, flair), strict=True):
        np.testing.assert_array_equal(before[far], after[far])


def test_a_contrast_whose_lesions_are_unknown_leaves_all_images_alone(white):
    images = [white.astype(np.float32)] * 2
    same = paint_lesions(np.random.default_rng(0), images, ['T1w', 'SWI'], white)
    np.testing.assert_array_equal(same[0], images[0])
