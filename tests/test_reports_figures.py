"""Figures: what lies where, what is marked, and what is in the file."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree as ET

import nibabel as nb
import numpy as np
import pytest
from PIL import Image

from tumsyn_bids.reports import figures, sheet, slices

SVG = '{http://www.w3.org/2000/svg}'


def image(data, affine=None) -> nb.Nifti1Image:
    default = nb.affines.from_matvec(np.diag([3.0, 3.0, 3.0]), [-60, -75, -45])
    return nb.Nifti1Image(np.asarray(data, np.float32), default if affine is None else affine)


@pytest.fixture
def head():
    """A head of 3 mm: brain of 100, skull of 300, one spot of 180 left, in front and on top."""
    i, j, k = np.indices((40, 50, 40))
    radius = np.sqrt(((i - 20) / 18) ** 2 + ((j - 25) / 23) ** 2 + ((k - 18) / 17) ** 2)
    data = np.where(radius < 0.8, 100.0, np.where(radius < 1, 300.0, 0.0))
    data[12:15, 34:37, 22:25] = 180
    return image(data), image(radius < 0.8)


def rasters(path) -> list[list[np.ndarray]]:
    """Decode the layers of each row of a figure."""
    rows = []
    for group in ET.parse(path).getroot().iter(f'{SVG}g'):
        hrefs = [item.get('href') for item in group.iter(f'{SVG}image')]
        blobs = [base64.b64decode(href.split(',', 1)[1]) for href in hrefs]
        rows.append([np.asarray(Image.open(io.BytesIO(blob))) for blob in blobs])
    return rows


def texts(path) -> list[str]:
    return [item.text for item in ET.parse(path).getroot().iter(f'{SVG}text')]


@pytest.mark.parametrize('axes', ['RAS', 'LPS', 'PIR', 'ASL'])
def test_views_do_not_depend_on_storage_order(head, axes):
    img, mask = head
    view = slices.View.around(mask)
    turned = img.as_reoriented(
        nb.orientations.ornt_transform(
            nb.io_orientation(img.affine), nb.orientations.axcodes2ornt(axes)
        )
    )
    for plane, tiles in view.sample(turned).items():
        np.testing.assert_allclose(tiles, view.sample(img)[plane], atol=1e-3)


def test_left_is_left_front_and_top_are_up(head):
    img, mask = head
    view = slices.View.around(mask)
    centres = {}
    for plane, tiles in view.sample(image(np.asarray(img.dataobj) == 180)).items():
        _cut, rows, columns = np.nonzero(tiles > 0.5)
        if len(rows):
            height, width = tiles.shape[1:]
            centres[plane] = (rows.mean() / height, columns.mean() / width)
    assert centres['axial'][0] < 0.5  # front is up
    assert centres['axial'][1] < 0.5  # left is left
    assert centres['sagittal'][0] < 0.5  # top is up
    assert centres['sagittal'][1] > 0.5  # front is right


def test_outline_lies_on_the_edge_of_the_mask():
    tile = np.zeros((20, 30))
    tile[5:15, 10:20] = 1
    path = slices.contour_path(np.stack([tile, tile]))
    outlines = path.split('Z')[:-1]
    assert len(outlines) == 2
    for number, outline in enumerate(outlines):
        points = np.array(re.findall(r'([\d.]+) ([\d.]+)', outline), float)
        left = number * (30 + slices.GAP)
        np.testing.assert_allclose(points.min(axis=0), [10 + left, 5], atol=0.51)
        np.testing.assert_allclose(points.max(axis=0), [20 + left, 15], atol=0.51)


def test_mask_touching_the_border_is_closed():
    assert slices.contour_path(np.ones((1, 4, 4))).count('Z') == 1


def test_ranges_and_bytes():
    assert slices.robust_range(np.zeros(5)) == (0.0, 1.0)
    low, high = slices.robust_range(np.full(5, 7.0))
    assert low < high
    pixels = slices.to_bytes(np.array([-5.0, 0, 5, 10, 99]), 0, 10)
    assert pixels.tolist() == [0, 0, 127, 255, 255]


def test_empty_foreground_shows_the_whole_image(tmp_path):
    view = slices.View.around(image(np.zeros((10, 12, 14))), margin=0)
    np.testing.assert_allclose(view.high - view.low, [30, 36, 42])
    empty = image(np.zeros((10, 12, 14)))
    assert figures.plot_mask(empty, empty, tmp_path / 'x.svg').is_file()


def test_mask_figure(tmp_path, head):
    path = figures.plot_mask(*head, tmp_path / 'new' / 'mask.svg', note='1400 ml')
    root = ET.parse(path).getroot()
    assert len(rasters(path)) == 3
    assert len(list(root.iter(f'{SVG}path'))) == 3
    assert {'Brain mask', '1400 ml', 'axial', 'coronal', 'sagittal'} <= set(texts(path))
    # The brain, not the brighter skull, sets the brightness.
    axial = rasters(path)[0][0]
    assert np.median(axial[axial > 30]) > 80


def test_registration_figure_shows_the_shift_before_and_none_after(tmp_path, head):
    img, mask = head
    shifted = nb.affines.from_matvec(np.eye(3), [0, 15, 0]) @ img.affine
    before = image(img.dataobj, shifted)
    path = figures.plot_registration(img, before, img, tmp_path / 'r.svg', mask=mask)
    rows = rasters(path)
    assert [len(row) for row in rows] == [2] * 6
    reference, moved = (layer.astype(float) for layer in rows[0])
    assert np.abs(reference - moved).mean() > 10
    reference, aligned = (layer.astype(float) for layer in rows[1])
    assert np.abs(reference - aligned).mean() < 1
    flickering = [
        item for item in ET.parse(path).getroot().iter(f'{SVG}image') if item.get('class')
    ]
    assert len(flickering) == 6


def test_registration_figure_without_a_mask_outlines_the_head(tmp_path, head):
    path = figures.plot_registration(head[0], head[0], head[0], tmp_path / 'r.svg')
    assert all(item.get('d') for item in ET.parse(path).getroot().iter(f'{SVG}path'))


def test_synthetic_rows_are_marked_and_acquired_ones_are_not(tmp_path, head):
    img, mask = head
    synthetic = image(np.asarray(mask.dataobj) * 500)
    path = figures.plot_synthesis(
        img, synthetic, tmp_path / 's.svg', 'T2w from T1w', synthetic_label='T2w'
    )
    assert texts(path).count('SYNTHETIC') == 3
    assert texts(path).count('acquired') == 3
    _real, made = (row[0] for row in rasters(path)[:2])
    blank = figures.plot_synthesis(img, mask, tmp_path / 'b.svg', 'x')
    assert made.shape == rasters(blank)[1][0].shape
    # The lowest rows of the brain-only picture hold nothing but the mark.
    assert (made[-12:] > 100).any()
    assert not (
        rasters(figures.plot_mask(synthetic, mask, tmp_path / 'm.svg'))[0][0][-8:] > 100
    ).any()


def test_equal_images_have_no_difference(tmp_path, head):
    synthetic = image(np.asarray(head[1].dataobj) * (50 + np.arange(40)[:, None, None]))
    path = figures.plot_validation(synthetic, synthetic, tmp_path / 'v.svg')
    assert [row[0].max() < 5 for row in rasters(path)] == [False, False, True] * 3
    assert texts(path).count('SYNTHETIC') == 3


def test_brighter_is_red_and_darker_is_blue(tmp_path, head):
    brain = np.asarray(head[1].dataobj)
    acquired, made = 100 * brain, 100 * brain
    acquired[:, :25] *= 0.5  # the back of the acquired brain is darker
    path = figures.plot_validation(image(acquired), image(made), tmp_path / 'v.svg')
    difference = rasters(path)[2][0].astype(int)
    front, back = np.array_split(difference, 2)
    assert back[..., 0].mean() > 50
    assert back[..., 0].mean() > 2 * back[..., 2].mean()
    assert front.mean() < 20
    path = figures.plot_validation(image(made), image(acquired), tmp_path / 'v.svg')
    back = np.array_split(rasters(path)[2][0].astype(int), 2)[1]
    assert back[..., 2].mean() > 2 * back[..., 0].mean()


def test_images_on_other_grids_and_with_gaps_in_the_numbers(tmp_path, head):
    img, mask = head
    coarse = image(np.asarray(img.dataobj)[::2, ::2, ::2], img.affine @ np.diag([2, 2, 2, 1]))
    data = np.asarray(mask.dataobj) * 100.0
    data[20, 20, 20] = np.nan
    assert figures.plot_synthesis(coarse, image(data), tmp_path / 's.svg', 't').is_file()
    assert figures.plot_validation(coarse, image(data), tmp_path / 'v.svg').is_file()


def test_titles_are_escaped(tmp_path, head):
    path = figures.plot_mask(*head, tmp_path / 'm.svg', title='<script>alert(1)</script>&')
    assert '<script' not in path.read_text()
    assert '<script>alert(1)</script>&' in texts(path)


def test_failed_drawing_leaves_no_file(tmp_path, head, monkeypatch):
    monkeypatch.setattr(sheet, 'render', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        figures.plot_mask(*head, tmp_path / 'm.svg')
    assert list(tmp_path.iterdir()) == []


def test_figure_of_real_scans_is_small(tmp_path, shared_data):
    anat = shared_data / 'ds-openms' / 'sub-12' / 'ses-1' / 'anat'
    t1w, flair = (nb.load(anat / f'sub-12_ses-1_{name}.nii.gz') for name in ('T1w', 'FLAIR'))
    path = figures.plot_registration(t1w, flair, flair, tmp_path / 'r.svg')
    assert path.stat().st_size < 2_000_000
