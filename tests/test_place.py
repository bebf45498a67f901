"""Where in the brain a voxel lies: the same in every brain, pose and tile."""

from __future__ import annotations

import numpy as np
import pytest

from tumsyn_bids.place import BrainFrame
from tumsyn_bids.simulation.generator import draw_matrix


def _ellipsoid(shape, centre, radii, matrix=None):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1) - np.array(centre)
    if matrix is not None:
        index = index @ np.asarray(matrix).T
    return (np.square(index / np.array(radii)).sum(-1)) < 1


@pytest.fixture(scope='module')
def frame():
    return BrainFrame.of(_ellipsoid((60, 70, 50), (28, 36, 22), (20, 28, 16)))


def test_places_are_in_deviations_from_the_middle(frame):
    places = frame.places((0, 0, 0), (60, 70, 50))
    assert places.shape == (3, 60, 70, 50)
    np.testing.assert_allclose(places[:, 28, 36, 22], 0, atol=1e-6)
    # An ellipsoid's standard deviation is its radius over the root of five.
    np.testing.assert_allclose(places[1, 0, 36 + 28, 0], np.sqrt(5), rtol=0.01)
    np.testing.assert_allclose(places[2, 0, 0, 22 - 16], -np.sqrt(5), rtol=0.01)


def test_left_and_right_are_the_same_place(frame):
    places = frame.places((0, 0, 0), (57, 70, 50))
    np.testing.assert_allclose(places, places[:, ::-1], atol=1e-5)


def test_a_larger_brain_elsewhere_has_the_same_places(frame):
    larger = BrainFrame.of(_ellipsoid((90, 110, 80), (40, 50, 41), (30, 42, 24)))
    np.testing.assert_allclose(
        frame.places_of(np.array([[28 + 10, 36 - 14, 22 + 8]])),
        larger.places_of(np.array([[40 + 15, 50 - 21, 41 + 12]])),
        rtol=0.02,
    )


def test_a_box_and_its_points_agree(frame):
    box = frame.places((5, 7, 9), (4, 3, 2))
    points = np.argwhere(np.ones((4, 3, 2))) + np.array([5, 7, 9])
    np.testing.assert_allclose(box.reshape(3, -1).T, frame.places_of(points), atol=1e-6)


def test_a_frame_seen_from_a_turned_and_mirrored_patch_is_that_of_the_turned_brain(frame):
    """What training tells of a turned patch is what a mask in that pose would tell."""
    matrix = draw_matrix(np.random.default_rng(4))
    centre = np.array([30.0, 30.0, 25.0])
    seen = frame.seen_from(matrix, centre)
    # The same brain, drawn on a grid in the patch's coordinates.
    index = np.stack(np.meshgrid(*[np.arange(-45, 45)] * 3, indexing='ij'), -1)
    voxel = index @ matrix.T + centre
    turned = np.square((voxel - (28, 36, 22)) / np.array([20, 28, 16])).sum(-1) < 1
    measured = BrainFrame.of(turned)
    np.testing.assert_allclose(seen.centre, measured.centre - 45, atol=0.1)
    np.testing.assert_allclose(seen.covariance, measured.covariance, atol=0.02 * 28**2 / 5)


@pytest.mark.parametrize('mask', [np.zeros((4, 4, 4), bool), np.eye(4, dtype=bool)[None]])
def test_what_is_no_brain_is_refused(mask):
    with pytest.raises(ValueError, match='no brain'):
        BrainFrame.of(mask)
