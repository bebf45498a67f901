"""Thickness and surfaces of shells and slabs of known size, and what is told when they fail."""

from __future__ import annotations

import dataclasses
import json
import math

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid
from tumsyn_bids.interfaces.morphometry import MeasureCortex
from tumsyn_bids.morphometry import cortex as room
from tumsyn_bids.morphometry.cortex import Cortex, add_cortex, cortex_doubts, measure_cortex
from tumsyn_bids.morphometry.freesurfer import write_subject
from tumsyn_bids.morphometry.labels import structures
from tumsyn_bids.morphometry.refinement import Tissues
from tumsyn_bids.morphometry.stats import aparc_stats, aseg_stats
from tumsyn_bids.morphometry.surface_files import gifti, load_surface, save_surface
from tumsyn_bids.morphometry.surfaces import hemisphere_surface
from tumsyn_bids.morphometry.tables import morph_rows, report_rows
from tumsyn_bids.morphometry.thickness import ribbon, thickness_map

INNER, THICK = 9.3, 3.0


def share(inside: np.ndarray, fine: int) -> np.ndarray:
    """Return the share of each voxel inside a shape that is sampled ``fine`` times as finely."""
    shape = [part for size in inside.shape for part in (size // fine, fine)]
    return inside.reshape(shape).mean(axis=(1, 3, 5)).astype(np.float32)


def layers(distance: np.ndarray, inner: float, outer: float, fine: int = 4):
    """Return the labels and tissues of white matter under a cortex."""
    white, whole = share(distance < inner, fine), share(distance < outer, fine)
    labels = np.select([white > 0.5, whole > 0.5], [2, 1035], 0).astype(np.int32)
    grid = Grid(labels.shape, np.diag([1.0, 1.0, 1.0, 1.0]))
    return labels, Tissues(whole - white, white, 1 - whole), grid


def sphere(inner: float = INNER, thick: float = THICK, size: int = 34, fine: int = 4):
    axis = (np.arange(size * fine) + 0.5) / fine - size / 2
    distance = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, sparse=True)))
    return layers(distance, inner, inner + thick, fine)


def slab(thick: float, inner: float, size: int = 22, fine: int = 10):
    axis = np.abs((np.arange(size * fine) + 0.5) / fine - size / 2)
    distance = np.broadcast_to(axis[:, None, None], (size * fine, size, size))
    parts = np.ascontiguousarray(distance).reshape(size, fine, size, size)
    white, whole = ((parts < edge).mean(axis=1) for edge in (inner, inner + thick))
    white, whole = white.astype(np.float32), whole.astype(np.float32)
    labels = np.select([white > 0.5, whole > 0.5], [2, 1035], 0).astype(np.int32)
    return labels, Tissues(whole - white, white, 1 - whole), Grid(labels.shape, np.eye(4))


class TestThickness:
    # Wherever in a voxel the borders lie.
    @pytest.mark.parametrize(
        ('thick', 'inner'), [(2.0, 3.0), (2.0, 3.4), (2.0, 3.7), (2.5, 3.3), (3.0, 3.4)]
    )
    def test_of_a_slab_is_right_within_a_third_of_a_millimetre(self, thick, inner):
        labels, tissues, grid = slab(thick, inner)
        found = thickness_map(ribbon(labels, tissues), grid, threads=1)
        # The slab ends where the image ends: only its middle has neighbours on all sides.
        middle = found[:, 8:-8, 8:-8]
        assert middle[middle > 0].mean() == pytest.approx(thick, abs=0.3)

    def test_of_a_shell_is_right_within_a_third_of_a_millimetre(self):
        labels, tissues, grid = sphere()
        found = thickness_map(ribbon(labels, tissues), grid, threads=1)
        cortex = labels == 1035
        assert (found[cortex] > 0).mean() > 0.95
        assert found[cortex].mean() == pytest.approx(THICK, abs=0.3)
        assert not found[~cortex].any()

    def test_without_cortex_is_refused(self):
        labels, tissues, grid = sphere()
        with pytest.raises(ScanError, match='no cortex'):
            thickness_map(ribbon(np.where(labels == 1035, 0, labels), tissues), grid)


@pytest.fixture(scope='module')
def ball():
    """Return labels, tissues, grid and surface of a shell whose thickness is given."""
    labels, tissues, grid = sphere(14.3, THICK, 46, 3)
    own = ribbon(labels, tissues, ('lh',))
    thickness = np.where(own.cortex, THICK, 0)
    return labels, tissues, grid, hemisphere_surface(own, labels, thickness, grid)


class TestSurface:
    def test_is_closed_and_lies_at_the_borders(self, ball):
        *_, surface = ball
        assert surface.euler == 2
        for places, radius in ((surface.white, 14.3), (surface.pial, 14.3 + THICK)):
            found = np.linalg.norm(places - 22.5, axis=1)
            assert found.mean() == pytest.approx(radius, abs=0.1)
            assert found.std() < 0.1
        assert np.nanmean(surface.thickness) == pytest.approx(THICK, abs=0.01)

    def test_area_and_curvature_are_those_of_the_sphere(self, ball):
        *_, surface = ball
        assert surface.area.sum() == pytest.approx(4 * math.pi * 14.3**2, rel=0.03)
        assert surface.pial_area.sum() == pytest.approx(4 * math.pi * 17.3**2, rel=0.03)
        mean = (surface.curvature * surface.area).sum() / surface.area.sum()
        assert mean == pytest.approx(-1 / 14.3, rel=0.15)

    def test_lies_in_world_coordinates_and_looks_outward(self, ball):
        labels, tissues, grid, _ = ball
        affine = np.diag([-1.0, 1.0, 1.0, 1.0])
        affine[:3, 3] = 30, -12, 7
        own = ribbon(labels, tissues, ('lh',))
        thickness = np.where(own.cortex, THICK, 0)
        surface = hemisphere_surface(own, labels, thickness, Grid(grid.shape, affine))
        centre = nb.affines.apply_affine(affine, [22.5] * 3)
        assert np.allclose(surface.white.mean(axis=0), centre, atol=0.1)
        corners = surface.white[surface.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((corners.mean(axis=1) - centre) * normals).sum(axis=1).min() > 0

    def test_a_handle_is_seen(self, ball):
        labels, tissues, grid, _ = ball
        holed = labels.copy()
        holed[20:26, 20:26] = np.where(holed[20:26, 20:26] == 2, 1035, holed[20:26, 20:26])
        gm = np.where(holed == 1035, 1, tissues.gm)
        wm = np.where(holed == 1035, 0, tissues.wm)
        own = ribbon(holed, Tissues(gm, wm, tissues.csf), ('lh',))
        surface = hemisphere_surface(own, holed, np.where(own.cortex, 2.0, 0), grid)
        assert surface.euler == 0

    def test_banks_of_a_sulcus_do_not_pass_through_each_other(self):
        # A sulcus 4 mm wide, full of cortex said to be 3 mm thick from either side.
        labels = np.full((30, 30, 30), 2, np.int32)
        labels[:, 13:17, 8:] = 1035
        labels[:3] = labels[-3:] = labels[:, :3] = labels[:, -3:] = 0
        labels[:, :, :3] = labels[:, :, -3:] = 0
        tissues = Tissues(*((labels == number).astype(np.float32) for number in (1035, 2, 0)))
        own = ribbon(labels, tissues, ('lh',))
        grid = Grid(labels.shape, np.eye(4))
        surface = hemisphere_surface(own, labels, np.where(own.cortex, 3.0, 0), grid)
        middle = (np.abs(surface.white[:, [0, 2]] - (14.5, 18)) < 6).all(axis=1)
        bank = middle & (surface.white[:, 1] > 8) & (surface.white[:, 1] < 14.5)
        assert bank.sum() > 50
        # Voxel indices 13 to 16 are cortex: 14.5 is the middle of the sulcus.
        assert surface.pial[bank, 1].max() < 15.0

    def test_without_white_matter_is_refused(self, ball):
        labels, tissues, grid, _ = ball
        own = ribbon(np.zeros_like(labels), tissues, ('lh',))
        with pytest.raises(ScanError, match='white matter'):
            hemisphere_surface(own, labels, np.zeros(labels.shape), grid)

    def test_comes_back_from_files(self, ball, tmp_path):
        *_, surface = ball
        again = load_surface(save_surface(surface, tmp_path / 'lh.npz'))
        assert np.array_equal(again.pial, surface.pial)
        gifti(surface, 'lh', 'midthickness').to_filename(tmp_path / 'mid.surf.gii')
        points, faces = (item.data for item in nb.load(tmp_path / 'mid.surf.gii').darrays)
        assert np.allclose(np.linalg.norm(points - 22.5, axis=1).mean(), 15.8, atol=0.1)
        assert faces.max() == len(points) - 1
        gifti(surface, 'lh', 'thickness').to_filename(tmp_path / 'thick.shape.gii')
        assert len(nb.load(tmp_path / 'thick.shape.gii').darrays[0].data) == len(points)


def record() -> dict:
    rows = [
        {'number': number, 'name': item.name, 'hemisphere': item.hemisphere, 'voxels': 100}
        | {'volume_mm3': 100.0, 'flag': '', 'mean': 1.0, 'sd': 1.0, 'low': 1.0, 'high': 1.0}
        for number, item in sorted(structures().items())
    ]
    names = ('lhCortex', 'rhCortex', 'BrainSeg', 'BrainSegNotVent', 'Cortex')
    brain = dict.fromkeys((*names, 'EstimatedTotalIntraCranialVol'), 1e6)
    return {'structures': rows, 'brain': brain, 'affine': np.eye(4).tolist()}


class TestTables:
    def test_parcels_have_thickness_area_and_curvature(self, ball):
        labels, _, _, surface = ball
        thickness = np.where(labels == 1035, THICK, 0)
        found = add_cortex(record(), labels, Cortex(thickness, {'lh': surface}))
        rows = {row['name']: row for row in morph_rows(found)}
        insula = rows['ctx-lh-insula']
        assert (insula['thickness-avg-mm'], insula['thickness-std-mm']) == ('3.000', '0.000')
        assert float(insula['area-mm2']) == pytest.approx(4 * math.pi * 14.3**2, rel=0.03)
        assert float(insula['curvature-avg-permm']) == pytest.approx(1 / 14.3, rel=0.15)
        assert insula['flag'] is None
        assert rows['ctx-lh-cuneus']['thickness-avg-mm'] is None
        assert rows['ctx-lh-cuneus']['flag'] == 'thickness not measured'
        assert rows['Left-Hippocampus']['thickness-avg-mm'] is None
        assert rows['Left-Hippocampus']['flag'] is None
        assert float(rows['lhWhiteSurface']['thickness-avg-mm']) == pytest.approx(3, abs=0.01)
        assert float(rows['lhPialSurface']['area-mm2']) > float(insula['area-mm2'])
        shown = {row['structure']: row for row in report_rows(found)}
        assert shown['Thickness of the cortex (mean)']['left'] == '3.00 mm'
        assert shown['Thickness of the cortex (mean)']['right'] == 'n/a'
        assert rows['lhWhiteSurface']['euler-number'] == 2
        assert shown['Euler number of the white surface'] == {
            'structure': 'Euler number of the white surface',
            'left': '2',
            'right': 'n/a',
        }

    def test_of_freesurfer_are_complete(self, ball):
        labels, _, _, surface = ball
        thickness = np.where(labels == 1035, THICK, 0)
        found = add_cortex(record(), labels, Cortex(thickness, {'lh': surface}))
        lines = aparc_stats(found, 'sub-01', 'lh', 'acquired').splitlines()
        rows = {line.split()[0]: line.split() for line in lines if not line.startswith('#')}
        assert {len(row) for row in rows.values()} == {10}
        insula = rows['insula']
        assert int(insula[1]) == (surface.parcels == 1035).sum()
        assert insula[3:6] == ['100', '3.000', '0.000']
        assert rows['cuneus'][1:3] == ['NaN', 'NaN']
        measures = {line.split(', ')[1]: line.split(', ')[3] for line in lines if '# Meas' in line}
        assert float(measures['MeanThickness']) == pytest.approx(3, abs=0.01)
        assert float(measures['WhiteSurfArea']) == pytest.approx(surface.area.sum(), abs=0.1)
        lines = aseg_stats({**found, 'brain': {}}, 'sub-01', 'acquired').splitlines()
        holes = [line.split(', ') for line in lines if 'Holes' in line]
        assert [(line[1], line[3]) for line in holes] == [('lhSurfaceHoles', '0')]

    def test_implausible_thickness_is_flagged(self, ball):
        labels = ball[0]
        found = add_cortex(record(), labels, Cortex(np.where(labels == 1035, 7.0, 0)))
        rows = {row['name']: row for row in morph_rows(found)}
        assert rows['ctx-lh-insula']['flag'] == 'implausible thickness'
        assert any('7.0 mm' in note for note in cortex_doubts(found, []))


def test_a_thickness_that_fails_is_unknown_and_told(ball, tmp_path, monkeypatch):
    labels, tissues, grid, _ = ball

    def refuse(*arguments, **options):
        raise ScanError('DiReCT found no thickness')

    monkeypatch.setattr(room, 'thickness_map', refuse)
    found = measure_cortex(labels, tissues, grid)
    assert found.thickness is None
    assert 'was not measured: DiReCT found no thickness' in found.notes[0]
    files = {'labels': labels, 'tissues': np.stack([tissues.gm, tissues.wm, tissues.csf], -1)}
    for name, data in files.items():
        nb.Nifti1Image(data, grid.affine).to_filename(tmp_path / f'{name}.nii')
    (tmp_path / 'measures.json').write_text(json.dumps(record()))
    monkeypatch.chdir(tmp_path)
    step = MeasureCortex(
        labels_file=str(tmp_path / 'labels.nii'),
        tissues_file=str(tmp_path / 'tissues.nii'),
        measures_file=str(tmp_path / 'measures.json'),
        warnings=['older'],
    )
    outputs = step.run().outputs
    assert outputs.warnings[0] == 'older'
    assert 'not measured' in outputs.warnings[1]
    assert outputs.surface_files == []
    with open(outputs.measures_file) as file:
        rows = morph_rows(json.load(file))
    parcels = [row for row in rows if row['name'].startswith('ctx-')]
    assert {row['thickness-avg-mm'] for row in parcels} == {None}
    assert {row['flag'] for row in parcels} == {'thickness not measured'}


def test_freesurfer_has_surfaces_and_second_images(ball, tmp_path):
    labels, tissues, _, surface = ball
    affine = np.eye(4)
    affine[:3, 3] = 5, -8, 11
    surface = dataclasses.replace(
        surface, white=surface.white + affine[:3, 3], pial=surface.pial + affine[:3, 3]
    )
    brain = nb.Nifti1Image(100 * (tissues.gm + tissues.wm), affine)
    folder = write_subject(
        tmp_path,
        'sub-01',
        t1w=brain,
        brain=brain,
        labels=nb.Nifti1Image(labels, affine),
        record=record(),
        surfaces={'lh': surface},
        others={'T2w': brain, 'FLAIR': brain},
    )
    points, faces = nb.freesurfer.read_geometry(folder / 'surf' / 'lh.white')
    assert len(faces) == len(surface.faces)
    # A vertex in the voxels of orig.mgz, the way FreeSurfer goes: inside there is white matter.
    orig = nb.load(folder / 'mri' / 'aparc+aseg.mgz')
    to_voxel = np.linalg.inv(orig.header.get_vox2ras_tkr())
    data = np.asarray(orig.dataobj)
    for share, number in ((0.8, 2), (1.1, 1035)):
        middle = points.mean(axis=0)
        places = nb.affines.apply_affine(to_voxel, middle + share * (points - middle))
        found = data[tuple(np.rint(places).astype(int).T)]
        assert (found == number).mean() > 0.95
    assert nb.freesurfer.read_morph_data(folder / 'surf' / 'lh.thickness').max() <= 3.01
    parcels, _, names = nb.freesurfer.read_annot(folder / 'label' / 'lh.aparc.annot')
    assert names[parcels[0]] == b'insula'
    for name in ('T2raw', 'FLAIRraw'):
        assert nb.load(folder / 'mri' / 'orig' / f'{name}.mgz').shape == labels.shape
