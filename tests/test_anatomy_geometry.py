"""Reading scans: what is refused, what is mended, and that anatomy stays where it is."""

from __future__ import annotations

import gzip

import nibabel as nb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine

from tumsyn_bids.anatomy.conversion import array_to_ants, from_ants, read_itk, to_ants, write_itk
from tumsyn_bids.anatomy.geometry import orthogonal_grid, sanitize, winsorize
from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid

OBLIQUE = nb.affines.from_matvec(
    nb.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.0, -1.2, 2.5]), [20, 30, -40]
)


def blob(affine, shape=(20, 18, 16), centre=None):
    """A blob whose centre in world coordinates is known."""
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    if centre is None:
        centre = apply_affine(affine, np.array(shape) / 2 - 1)
    distance = np.linalg.norm(world - centre, axis=-1)
    return (1000 * np.exp(-((distance / 6) ** 2))).astype(np.float32), np.asarray(centre)


def centroid(img):
    data = np.asarray(img.dataobj, dtype=float)
    places = np.argwhere(data > 100)
    return np.average(apply_affine(img.affine, places), axis=0, weights=data[data > 100])


def save(path, data, affine, sform=1, qform=1, **header):
    img = nb.Nifti1Image(data, affine)
    img.set_sform(affine, code=sform)
    img.set_qform(affine, code=qform)
    for key, value in header.items():
        img.header[key] = value
    nb.save(img, path)
    return path


def test_a_clean_scan_keeps_its_voxels_and_its_place(tmp_path):
    data, _ = blob(OBLIQUE)
    clean = sanitize(save(tmp_path / 'scan.nii.gz', data, OBLIQUE))
    assert clean.findings == []
    np.testing.assert_array_equal(np.asarray(clean.img.dataobj), data)
    np.testing.assert_allclose(clean.img.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_allclose(clean.img.get_sform(), clean.img.get_qform(), atol=1e-5)
    assert clean.img.header['sform_code'] == clean.img.header['qform_code'] == 1
    assert clean.img.get_data_dtype() == np.float32


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(axes=st.permutations('xyz'), flips=st.lists(st.booleans(), min_size=3, max_size=3))
def test_storage_orientation_does_not_move_the_anatomy(tmp_path, axes, flips):
    data, _ = blob(OBLIQUE)
    ornt = [
        [list(axes).index(axis), -1 if flip else 1]
        for axis, flip in zip('xyz', flips, strict=True)
    ]
    stored = nb.Nifti1Image(data, OBLIQUE).as_reoriented(np.array(ornt))
    clean = sanitize(save(tmp_path / 'scan.nii', np.asarray(stored.dataobj), stored.affine)).img
    np.testing.assert_allclose(centroid(clean), centroid(nb.Nifti1Image(data, OBLIQUE)), atol=1e-3)
    assert nb.aff2axcodes(clean.affine) == nb.aff2axcodes(stored.affine)


@pytest.mark.parametrize('dtype', ['>i2', '<i2', '>f4', 'u1', '<f8'])
def test_byte_order_and_integer_scaling_are_undone(tmp_path, dtype):
    data, _ = blob(OBLIQUE)
    header = nb.Nifti1Header(endianness='>' if dtype.startswith('>') else '<')
    header.set_data_dtype(dtype)
    img = nb.Nifti1Image(data, OBLIQUE, header)
    img.set_sform(OBLIQUE, code=1)
    nb.save(img, tmp_path / 'scan.nii.gz')
    clean = sanitize(tmp_path / 'scan.nii.gz').img
    assert np.abs(np.asarray(clean.dataobj) - data).max() <= 1000 / 255


def test_one_volume_in_four_dimensions_is_a_volume(tmp_path):
    data, _ = blob(OBLIQUE)
    assert sanitize(save(tmp_path / 'scan.nii', data[..., None], OBLIQUE)).img.shape == data.shape


def test_sform_wins_over_a_qform_that_disagrees(tmp_path):
    data, _ = blob(OBLIQUE)
    img = nb.Nifti1Image(data, OBLIQUE)
    elsewhere = OBLIQUE.copy()
    elsewhere[:3, 3] += [0, 31, 0]
    img.set_sform(OBLIQUE, code=2)
    img.set_qform(elsewhere, code=1)
    nb.save(img, tmp_path / 'scan.nii')
    clean = sanitize(tmp_path / 'scan.nii')
    np.testing.assert_allclose(clean.img.affine, OBLIQUE, atol=1e-4)
    (finding,) = clean.findings
    assert '31.0 mm' in finding.problem
    assert finding.field == 'qform'


def break_qform(path, code, quaternion):
    """Write into the bytes of a file, because saving an image would make its qform anew."""
    content = bytearray(path.read_bytes())
    content[252:254] = np.int16(code).tobytes()
    content[256:268] = np.array(quaternion, np.float32).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(('code', 'number'), [(0, 1), (1, 1), (1, np.nan)])
def test_sform_counts_where_the_qform_is_broken(tmp_path, code, number):
    data, _ = blob(OBLIQUE)
    path = break_qform(save(tmp_path / 'scan.nii', data, OBLIQUE), code, [number] * 3)
    clean = sanitize(path)
    np.testing.assert_allclose(clean.img.affine, OBLIQUE, atol=1e-4)
    (finding,) = clean.findings
    assert finding.field == 'qform'
    assert 'broken' in finding.problem
    assert finding.action == 'the sform was taken'


def test_broken_qform_without_an_sform_is_refused(tmp_path):
    data, _ = blob(OBLIQUE)
    path = break_qform(save(tmp_path / 'scan.nii', data, OBLIQUE, sform=0), 1, [1, 1, 1])
    with pytest.raises(ScanError):
        sanitize(path)


def test_qform_counts_where_the_sform_is_not_set(tmp_path):
    data, _ = blob(OBLIQUE)
    clean = sanitize(save(tmp_path / 'scan.nii', data, OBLIQUE, sform=0))
    np.testing.assert_allclose(clean.img.affine, OBLIQUE, atol=1e-4)


def test_a_sheared_scan_lands_on_orthogonal_axes_at_the_same_place(tmp_path):
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    data, centre = blob(sheared)
    clean = sanitize(save(tmp_path / 'scan.nii', data, sheared, qform=0))
    assert any('sheared' in finding.problem for finding in clean.findings)
    directions = clean.img.affine[:3, :3] / nb.affines.voxel_sizes(clean.img.affine)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(centroid(clean.img), centre, atol=0.1)


def test_the_orthogonal_grid_covers_the_sheared_one():
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.3 * sheared[:3, 0]
    shape = (20, 18, 16)
    grid = orthogonal_grid(Grid(shape, sheared))
    corners = np.array([[i, j, k] for i in (0, 19) for j in (0, 17) for k in (0, 15)])
    inside = apply_affine(np.linalg.inv(grid.affine) @ sheared, corners)
    assert (inside > -0.51).all()
    assert (inside < np.array(grid.shape) - 0.49).all()


def truncated(path, data):
    whole = save(path.with_name('whole.nii.gz'), data, OBLIQUE).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def holed(data):
    data[8:12, 8:12, 8:12] = np.nan
    return data


BROKEN = {
    'truncated': truncated,
    'not NIfTI': lambda path, data: path.write_bytes(gzip.compress(b'hello world' * 200)),
    'zero bytes': lambda path, data: path.write_bytes(b''),
    'dangling': lambda path, data: path.symlink_to(path.with_name('gone')),
    'pointer': lambda path, data: path.write_text('/annex/objects/MD5E-s22--01.nii.gz\n'),
    'absent': lambda path, data: None,
    'volumes': lambda path, data: save(path, np.stack([data] * 3, axis=-1), OBLIQUE),
    'slice': lambda path, data: save(path, data[:, :, :1], OBLIQUE),
    'constant': lambda path, data: save(path, np.full_like(data, 7), OBLIQUE),
    'all NaN': lambda path, data: save(path, np.full_like(data, np.nan), OBLIQUE),
    'NaN inside': lambda path, data: save(path, holed(data), OBLIQUE),
    'no forms': lambda path, data: save(path, data, OBLIQUE, sform=0, qform=0),
    'complex': lambda path, data: save(path, data.astype(np.complex64), OBLIQUE),
    'voxel size': lambda path, data: save(path, data, np.diag([1e-3, 1e-3, 1e-3, 1])),
}


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('truncated', 'ends too early'),
        ('not NIfTI', 'not a NIfTI'),
        ('zero bytes', 'not a NIfTI|ends too early'),
        ('dangling', 'datalad get'),
        ('pointer', 'datalad get'),
        ('absent', 'no such file'),
        ('volumes', '3 volumes'),
        ('slice', 'single slices'),
        ('constant', 'empty'),
        ('all NaN', 'NaN'),
        ('NaN inside', 'NaN'),
        ('no forms', 'sform or qform'),
        ('complex', 'complex'),
        ('voxel size', 'voxel size'),
    ],
)
def test_unusable_files_are_refused_by_name_with_a_remedy(tmp_path, kind, words):
    data, _ = blob(OBLIQUE)
    path = tmp_path / 'scan.nii.gz'
    BROKEN[kind](path, data)
    with pytest.raises(ScanError, match=words) as caught:
        sanitize(path)
    assert caught.value.path == path
    assert caught.value.remedy
    assert '\n' not in str(caught.value)


def test_background_of_nan_becomes_zero_and_is_reported(tmp_path):
    data, _ = blob(OBLIQUE)
    data[data < 50] = np.nan
    data[9, 8, 8] = np.inf
    clean = sanitize(save(tmp_path / 'scan.nii', data, OBLIQUE))
    values = np.asarray(clean.img.dataobj)
    assert np.isfinite(values).all()
    assert values[0, 0, 0] == 0
    assert values[9, 8, 8] > 500
    assert 'NaN' in clean.findings[0].problem


def test_the_real_scan_with_two_places_is_put_where_its_sform_says(shared_data):
    path = shared_data / 'stroke-t2' / 'T2.nii.gz'
    clean = sanitize(path)
    np.testing.assert_allclose(clean.img.affine, nb.load(path).get_sform(), atol=1e-3)
    assert any(finding.field == 'qform' for finding in clean.findings)


def test_winsorize_tames_a_wrapped_voxel_and_keeps_zeros():
    rng = np.random.default_rng(0)
    data = np.zeros((30, 30, 30), dtype=np.float32)
    data[5:25, 5:25, 5:25] = rng.normal(1000, 100, (20, 20, 20))
    data[10, 10, 10] = 65527
    tamed = winsorize(data)
    assert tamed.max() < 1500
    assert (tamed[data == 0] == 0).all()


def test_ants_sees_every_voxel_at_the_same_world_place():
    data, _ = blob(OBLIQUE)
    img = nb.Nifti1Image(data, OBLIQUE)
    image = to_ants(img)
    index = (3, 7, 11)
    import ants

    place = ants.transform_index_to_physical_point(image, index)
    np.testing.assert_allclose(
        np.array(place) * [-1, -1, 1], apply_affine(OBLIQUE, index), atol=1e-3
    )
    assert image[index] == data[index]
    back = from_ants(image)
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)


def test_ants_is_never_given_a_sheared_grid():
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.2 * sheared[:3, 1]
    with pytest.raises(ValueError, match='sheared'):
        array_to_ants(np.zeros((5, 5, 5)), Grid((5, 5, 5), sheared))


def test_itk_files_say_what_ants_reads(tmp_path):
    import ants

    matrix = nb.affines.from_matvec(nb.eulerangles.euler2mat(0.2, 0.1, -0.3), [5, -30, 12])
    path = write_itk(matrix, tmp_path / 'xfm.txt')
    np.testing.assert_allclose(read_itk(path), matrix, atol=1e-4)
    point = np.array([10.0, -20.0, 30.0])
    moved = ants.read_transform(str(path)).apply_to_point(tuple(point * [-1, -1, 1]))
    np.testing.assert_allclose(
        np.array(moved) * [-1, -1, 1], apply_affine(matrix, point), atol=1e-3
    )
    inverse = write_itk(np.linalg.inv(matrix), tmp_path / 'inverse.txt')
    np.testing.assert_allclose(read_itk(inverse) @ matrix, np.eye(4), atol=1e-3)
