"""The anatomy is complete, people differ from it in a known way, and their volumes are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from tumsyn_bids.physics.tissues import tissue_of_label
from tumsyn_bids.simulation import head
from tumsyn_bids.simulation.anatomy import TISSUE_NAMES, build_anatomy, label_names
from tumsyn_bids.simulation.phantom import draw_person, rigid, transform_points
from tumsyn_bids.simulation.scanner import View, scan_grid


@pytest.fixture(scope='module')
def anatomy():
    return build_anatomy(2)


@pytest.fixture(scope='module')
def person():
    return draw_person(np.random.default_rng(3))


def test_every_voxel_is_made_of_something(anatomy):
    assert (anatomy.weights.sum(axis=0, dtype=int) == 255).all()
    assert (anatomy.labels[anatomy.brain] > 0).all()
    assert anatomy.fraction('air')[anatomy.brain].max() == 0


def test_the_brain_has_the_structures_of_the_atlas(anatomy):
    found = set(np.unique(anatomy.labels[anatomy.brain]).tolist())
    wanted = {2, 41, 4, 43, 7, 46, 8, 47, 14, 15, 16, 24, 251, 255}
    wanted |= {10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60}
    wanted |= set(range(1001, 1036)) - {1004} | set(range(2001, 2036)) - {2004}
    assert wanted <= found
    assert found <= set(label_names())


def test_volumes_of_structures_are_those_of_the_template(anatomy):
    litre = anatomy.brain.sum() * 8e-6
    assert 1.75 < litre < 2.0  # the template is larger than most people
    for left, right, low, high in ((17, 53, 4, 8), (10, 49, 9, 13), (12, 51, 6, 10)):
        for label in (left, right):
            assert low < (anatomy.labels == label).sum() * 8e-3 < high


def test_labels_and_shares_of_tissue_agree(anatomy):
    tissue = np.vectorize(lambda label: TISSUE_NAMES.index(tissue_of_label(label)), otypes=[int])
    values, inverse = np.unique(anatomy.labels, return_inverse=True)
    of_label = tissue(values)[inverse.reshape(anatomy.labels.shape)]
    for name, least in (
        ('white_matter', 0.8),
        ('cortex', 0.8),
        ('thalamus', 0.8),
        ('bone', 0.99),
        ('fat', 0.6),
    ):
        here = of_label == TISSUE_NAMES.index(name)
        assert anatomy.fraction(name)[here].mean() > least


def test_the_head_is_closed(anatomy):
    body = anatomy.labels != head.AIR
    outside, _ = ndimage.label(~body)
    room = outside == outside[0, 0, -1]
    touching = ndimage.binary_dilation(room) & body
    touching[..., :2] = False  # the neck is cut off below
    assert (anatomy.labels[touching] == head.SKIN).mean() > 0.97
    around = ndimage.binary_dilation(anatomy.brain) & ~anatomy.brain
    assert not (anatomy.labels[around] == head.AIR).any()


def test_bone_lies_between_brain_and_scalp(anatomy):
    top = anatomy.labels[98 // 2, 114 // 2, :]
    order = [key for key, _ in _runs(top[::-1]) if key != head.AIR]
    skull = order.index(head.BONE)
    assert order[:2] == [head.SKIN, head.FAT]
    assert order[skull : skull + 3] == [head.BONE, head.MARROW, head.BONE]


def _runs(values):
    changes = np.flatnonzero(np.diff(values)) + 1
    return [(int(part[0]), len(part)) for part in np.split(values, changes)]


def test_both_sides_of_the_head_are_alike(anatomy):
    sides = anatomy.labels != head.AIR
    flipped = sides[::-1]
    assert (sides ^ flipped).sum() < 0.03 * sides.sum()


def test_only_two_spacings_are_offered():
    with pytest.raises(ValueError, match='1 or 2'):
        build_anatomy(3)


def test_mapping_to_the_template_and_back(person):
    points = np.random.default_rng(0).uniform(-80, 80, (3, 500))
    assert_allclose(person.from_template(person.to_template(points)), points, atol=1e-3)


def test_people_are_smooth_and_nowhere_folded(person):
    determinants = _determinants(person)
    assert determinants.min() > 0.5
    assert determinants.max() < 2.5


def test_people_differ_and_can_be_drawn_again(person):
    again = draw_person(np.random.default_rng(3))
    other = draw_person(np.random.default_rng(4))
    points = np.random.default_rng(0).uniform(-60, 60, (3, 200))
    assert (again.to_template(points) == person.to_template(points)).all()
    assert np.abs(other.to_template(points) - person.to_template(points)).mean() > 1


def test_volume_follows_from_the_deformation(anatomy, person):
    grid = scan_grid((2, 2, 2), (200, 240, 220), 'RAS', centre=(0, -10, 0))
    brain = anatomy.brain.astype(float)
    measured = View.of(anatomy, person, grid).mean(brain).sum() * 8
    points = transform_points(anatomy.affine, np.argwhere(anatomy.brain).T.astype(float))
    sizes = 1 / _determinants(person, person.from_template(points[:, ::7]))
    expected = sizes.mean() * anatomy.brain.sum() * 8
    assert measured == pytest.approx(expected, rel=5e-3)
    assert 1.2e6 < measured < 1.9e6


def _determinants(person, points=None, step=0.5):
    """Numerical determinants of the mapping to the template."""
    if points is None:
        points = np.stack(np.meshgrid(*[np.arange(-80, 81, 10.0)] * 3, indexing='ij'))
    columns = []
    for axis in range(3):
        shift = np.zeros(3).reshape(3, *(1,) * (points.ndim - 1)) + 0.0
        shift[axis] = step
        ahead, behind = person.to_template(points + shift), person.to_template(points - shift)
        columns.append((ahead - behind) / (2 * step))
    return np.linalg.det(np.moveaxis(np.stack(columns, axis=-1), 0, -2))


def test_a_rigid_transform_keeps_lengths():
    matrix = rigid((10, -20, 30), (1, 2, 3))
    assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert_allclose(np.linalg.det(matrix), 1)
    quarter = rigid((0, 0, 90), (1, 0, 0))
    assert_allclose(transform_points(quarter, np.array([1.0, 0, 0])), (1, 1, 0), atol=1e-12)
