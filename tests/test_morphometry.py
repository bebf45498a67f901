"""Labels, their refinement by tissue, and volumes, against boxes and spheres of known size."""

from __future__ import annotations

import dataclasses
import math

import nibabel as nb
import numpy as np
import pytest

from tumsyn_bids.anatomy.antsreg import Stage
from tumsyn_bids.errors import ScanError
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.morphometry import labels as room
from tumsyn_bids.morphometry import segmentation as room_of_segmentation
from tumsyn_bids.morphometry.fusion import fuse, fuse_mirrored, other_side
from tumsyn_bids.morphometry.guided import guided_tissues, tissue_priors
from tumsyn_bids.morphometry.refinement import Tissues, refine
from tumsyn_bids.morphometry.segmentation import (
    Segmentation,
    cut_structures,
    segment_brain,
    working_image,
)
from tumsyn_bids.morphometry.tables import morph_rows, to_record
from tumsyn_bids.morphometry.volumes import (
    brain_volumes,
    doubts,
    measure_structures,
    soft_volumes,
)
from tumsyn_bids.simulation.anatomy import build_anatomy


def hard(gm, wm, csf):
    return Tissues(*(np.asarray(item, np.float32) for item in (gm, wm, csf)))


@pytest.fixture
def sphere():
    """Return a ventricle, white matter and cortex in shells, with partial voxels."""
    size, zoom = 60, 1.0
    axes = np.indices((size,) * 3) - (size - 1) / 2
    radius = np.sqrt((axes**2).sum(axis=0))

    def ball(r):
        return np.clip(r - radius + 0.5, 0, 1)

    csf, white, whole = ball(8), ball(20) - ball(8), ball(24)
    tissues = hard(whole - ball(20), white, csf + ball(26) - whole)
    numbers = np.zeros(radius.shape, np.int32)
    numbers[radius < 24] = 1035
    numbers[radius < 20] = 2
    numbers[radius < 8] = 4
    return numbers, tissues, radius < 26, zoom


def volume(outer, inner=0.0):
    return 4 / 3 * math.pi * (outer**3 - inner**3)


class TestLabels:
    def test_are_those_of_freesurfer(self):
        found = room.structures()
        assert found[17].name == 'Left-Hippocampus'
        assert found[2035].name == 'ctx-rh-insula'
        assert (found[17].hemisphere, found[2035].hemisphere, found[16].hemisphere) == (
            'lh',
            'rh',
            '',
        )
        assert found[4].tissue == 'CSF'
        assert found[1035].tissue == 'GM'

    def test_both_sides_have_the_same_parcels(self):
        names = {side: set() for side in ('lh', 'rh')}
        for item in room.structures().values():
            if item.is_cortex:
                names[item.hemisphere].add(item.parcel)
        assert names['lh'] == names['rh']
        assert len(names['lh']) == 34

    def test_lesions_and_vessels_of_the_atlas_are_left_out(self):
        assert not {30, 62, 77, 80} & set(room.structures())


class TestRefinement:
    def test_cortex_follows_the_grey_matter(self, sphere):
        numbers, tissues, inside, zoom = sphere
        shifted = np.roll(numbers, 2, axis=0)
        before = np.mean((shifted == 1035) == (numbers == 1035))
        found = refine(shifted, tissues, inside, (zoom,) * 3)
        overlap = 2 * ((found == 1035) & (numbers == 1035)).sum()
        dice = overlap / ((found == 1035).sum() + (numbers == 1035).sum())
        assert dice > 0.97
        assert np.mean((found == 1035) == (numbers == 1035)) > before

    def test_ventricle_takes_up_csf_and_gives_up_white_matter(self, sphere):
        numbers, tissues, inside, zoom = sphere
        atlas = np.where(numbers == 4, 2, numbers)
        atlas[22:36, 25:35, 25:35] = 4
        found = refine(atlas, tissues, inside, (zoom,) * 3)
        truth = numbers == 4
        dice = 2 * ((found == 4) & truth).sum() / ((found == 4).sum() + truth.sum())
        assert dice > 0.95

    def test_third_ventricle_takes_up_csf_but_not_the_cisterns(self):
        labels = np.full((40, 40, 40), 10, np.int32)
        labels[:, :, :10] = 0
        labels[18:22, 10:30, 15:30] = 14
        csf = np.zeros(labels.shape, np.float32)
        csf[16:24, 10:30, 12:30] = 1  # the ventricle is wider than the atlas has it
        csf[:, :, :10] = 1  # the cistern, behind 2 mm of brain
        tissues = hard(1 - csf, 0 * csf, csf)
        found = refine(labels, tissues, np.ones(labels.shape, bool), (1, 1, 1))
        assert (found == 14).sum() == pytest.approx(8 * 20 * 18, rel=0.05)
        assert (found[:, :, :10] == 0).all()

    def test_caudate_takes_up_grey_matter_beside_it(self):
        labels = np.full((30, 30, 30), 2, np.int32)
        labels[10:20, 10:20, 10:18] = 11
        grey = np.zeros(labels.shape, np.float32)
        grey[10:20, 10:20, 10:20] = 1
        grey[26:28] = 1  # far away
        found = refine(
            labels, hard(grey, 1 - grey, 0 * grey), np.ones(labels.shape, bool), (1, 1, 1)
        )
        assert ((found == 11) == (np.indices(labels.shape) // 10 == 1).all(axis=0)).all()

    def test_white_matter_in_a_sulcus_of_the_atlas_is_kept(self, sphere):
        numbers, tissues, inside, zoom = sphere
        atlas = numbers.copy()
        atlas[47:54, 28:32, 28:32] = 0
        found = refine(atlas, tissues, inside, (zoom,) * 3)
        assert (found[47:49, 29:31, 29:31] == 2).all()

    def test_bright_scalp_in_the_mask_is_no_white_matter(self, sphere):
        numbers, tissues, inside, zoom = sphere
        scalp = np.zeros(inside.shape, bool)
        scalp[54:57, 27:33, 27:33] = True
        bright = hard(
            np.where(scalp, 0, tissues.gm),
            np.where(scalp, 1, tissues.wm),
            np.where(scalp, 0, tissues.csf),
        )
        found = refine(numbers, bright, inside | scalp, (zoom,) * 3)
        assert not (found[scalp] == 2).any()

    def test_nothing_lies_outside_of_the_brain(self, sphere):
        numbers, tissues, inside, zoom = sphere
        inside = inside & (np.indices(inside.shape)[0] > 30)
        assert not refine(numbers, tissues, inside, (zoom,) * 3)[~inside].any()


class TestTissues:
    def test_priors_add_up_and_follow_the_atlas(self, sphere):
        numbers, _, inside, zoom = sphere
        found = tissue_priors(numbers, inside, (zoom,) * 3)
        assert np.allclose((found.gm + found.wm + found.csf)[inside], 1, atol=1e-5)
        assert found.csf[30, 30, 30] > 0.9
        assert found.wm[30, 30, 44] > 0.9
        assert min(found.csf[inside].min(), found.gm[inside].min()) > 0.01

    def test_nameless_voxels_beside_the_cortex_may_be_cortex(self, sphere):
        """An atlas whose cortex is half as thick as the brain's must not turn the rest to CSF."""
        numbers, tissues, inside, zoom = sphere
        radius = np.sqrt(((np.indices(inside.shape) - 29.5) ** 2).sum(axis=0))
        thin = np.where(radius > 22, 0, numbers)
        brain = (345 * tissues.wm + 270 * tissues.gm + 120 * tissues.csf) * inside
        found = guided_tissues(brain, inside, thin, (zoom,) * 3)
        assert found.gm[(radius > 22) & (radius < 23.5)].mean() > 0.9
        assert found.csf[radius < 7].mean() > 0.9
        # Beyond the cortex both are as likely to begin with, and brightness decides.
        prior = tissue_priors(thin, inside, (zoom,) * 3)
        rim = (radius > 22.5) & (radius < 24)
        assert abs(prior.gm[rim].mean() - prior.csf[rim].mean()) < 0.4

    def test_cortex_of_low_contrast_is_not_taken_for_white_matter(self, sphere):
        """Noise as strong as the contrast, and an atlas that is 2 mm off."""
        numbers, tissues, inside, _ = sphere
        noise = np.random.default_rng(2).normal(0, 12, inside.shape)
        brain = (345 * tissues.wm + 305 * tissues.gm + 120 * tissues.csf + noise) * inside
        grid = Grid(inside.shape, np.eye(4))
        shifted = np.roll(numbers, 2, axis=0)
        found = guided_tissues(brain, inside, shifted, grid.zooms)
        truth = numbers == 1035
        cortex = found.gm[truth].mean()
        assert cortex > 0.8
        assert found.wm[numbers == 2].mean() > 0.8

    @pytest.mark.parametrize('brightness', [0, 100])
    def test_an_image_without_contrast_is_told(self, sphere, brightness):
        numbers, _, inside, zoom = sphere
        with pytest.raises(ScanError, match='cannot be told apart'):
            guided_tissues(inside * float(brightness), inside, numbers, (zoom,) * 3)

    def test_noise_alone_is_told(self, sphere):
        numbers, _, inside, zoom = sphere
        noise = np.random.default_rng(1).normal(100, 10, inside.shape) * inside
        with pytest.raises(ScanError, match='cannot be told apart'):
            guided_tissues(noise, inside, numbers, (zoom,) * 3)

    def test_no_tissue_gains_from_its_borders(self, sphere):
        """A cortex between bright and dark tissue, on voxels that hold two tissues at its borders.

        One Gaussian for each tissue draws the borders into the tissue that spreads least.
        """
        numbers, _, _, _ = sphere
        radius = np.sqrt(((np.indices(numbers.shape) - 29.5) ** 2).sum(axis=0))
        inside = radius < 27
        fluid, grey = (np.clip(radius - edge + 0.5, 0, 1) for edge in (23.3, 20.4))
        white, core = 1 - grey, np.clip(8.2 - radius + 0.5, 0, 1)
        truth = hard(grey - fluid, white - core, fluid + core)
        noise = np.random.default_rng(3).normal(0, 2, inside.shape)
        brain = (55 * truth.wm + 35 * truth.gm + 12 * truth.csf + noise) * inside
        found = guided_tissues(brain, inside, np.where(inside, numbers, 0), (1.0,) * 3)
        near = np.abs(radius - 20.4) < 4
        assert found.wm[near].sum() == pytest.approx(truth.wm[near].sum(), rel=0.02)
        assert found.gm[near].sum() == pytest.approx(truth.gm[near].sum(), rel=0.03)
        # A voxel half of CSF and half of white matter is as bright as grey matter.
        core = radius < 12
        assert found.csf[core].sum() == pytest.approx(truth.csf[core].sum(), rel=0.05)


class TestVolumes:
    def test_partial_voxels_count_in_part(self, sphere):
        numbers, tissues, _, zoom = sphere
        found = soft_volumes(numbers, tissues, (zoom,) * 3)
        assert found[1035] == pytest.approx(volume(24, 20), rel=0.02)
        assert found[2] == pytest.approx(volume(20, 8), rel=0.02)
        assert found[4] == pytest.approx(volume(8), rel=0.02)

    def test_doubt_far_from_the_cortex_takes_nothing_from_white_matter(self, sphere):
        numbers, tissues, _, zoom = sphere
        axes = np.indices(numbers.shape) - (numbers.shape[0] - 1) / 2
        radius = np.sqrt((axes**2).sum(axis=0))
        moved = 0.2 * tissues.wm * ((radius > 11) & (radius < 17))
        doubted = hard(tissues.gm + moved, tissues.wm - moved, tissues.csf)
        found = soft_volumes(numbers, doubted, (zoom,) * 3)
        assert found[2] == pytest.approx(volume(20, 8), rel=0.02)
        assert found[1035] == pytest.approx(volume(24, 20), rel=0.02)

    def test_voxel_size_counts(self, sphere):
        numbers, tissues, _, _ = sphere
        one, two = (soft_volumes(numbers, tissues, (zoom,) * 3) for zoom in (1.0, 2.0))
        assert two[1035] == pytest.approx(8 * one[1035])

    def test_what_is_missing_is_unknown_and_flagged(self, sphere):
        found = segmentation(*sphere)
        measures = measure_structures(found)
        hippocampus = next(item for item in measures if item.structure.number == 17)
        assert math.isnan(hippocampus.volume_mm3)
        rows = {row['name']: row for row in morph_rows(to_record(measures, {}, np.eye(4)))}
        assert rows['Left-Hippocampus']['volume-mm3'] is None
        assert rows['Left-Hippocampus']['voxels'] is None
        assert any('Left-Hippocampus' in note for note in doubts(measures, 1.5e6))

    def test_parts_add_up(self, sphere):
        found = segmentation(*sphere)
        parts = brain_volumes(found, measure_structures(found))
        assert parts['BrainSeg'] == pytest.approx(volume(24), rel=0.02)
        assert parts['BrainSeg'] - parts['BrainSegNotVent'] == pytest.approx(volume(8), rel=0.02)
        assert parts['lhCortex'] == pytest.approx(parts['Cortex'])
        assert parts['BrainSegVol-to-eTIV'] == pytest.approx(parts['BrainSeg'] / 1.5e6)

    def test_implausible_size_is_flagged(self):
        numbers = np.zeros((20, 20, 20), np.int32)
        numbers[:4, :4, :4] = 10
        tissues = hard(numbers == 10, numbers * 0, numbers * 0)
        measures = measure_structures(segmentation(numbers, tissues, numbers > 0, 1.0))
        thalamus = next(item for item in measures if item.structure.number == 10)
        assert thalamus.volume_mm3 == pytest.approx(64)
        assert 'implausible' in thalamus.flag


def test_what_the_end_of_the_image_cuts_off_is_flagged(sphere):
    numbers = sphere[0]
    grid = Grid(numbers.shape, np.eye(4))
    above = np.eye(4)
    above[2, 3] = 7
    whole, cropped = (
        cut_structures(numbers, grid, Grid((60, 60, 20), affine @ np.diag([1, 1, 3, 1.0])))
        for affine in (np.eye(4), above)
    )
    assert whole == frozenset()
    assert cropped == {1035}
    found = dataclasses.replace(segmentation(*sphere), cut=cropped)
    flags = {item.structure.number: item.flag for item in measure_structures(found)}
    assert (flags[1035], flags[4]) == ('cut off by the end of the image', '')


def segmentation(numbers, tissues, inside, zoom):
    grid = Grid(numbers.shape, np.diag([zoom, zoom, zoom, 1.0]))
    brain = np.where(inside, 100, 0).astype(np.float32)
    return Segmentation(numbers, tissues, brain, inside, grid, np.eye(4), 1.5e6)


def test_an_empty_mask_is_refused():
    img = nb.Nifti1Image(np.ones((8, 8, 8), np.float32), np.eye(4))
    empty = nb.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    with pytest.raises(ScanError, match='empty'):
        working_image(img, empty)


def test_working_image_keeps_the_place_of_the_brain():
    data = np.zeros((20, 30, 10), np.float32)
    data[5:15, 8:20, 3:7] = 50
    affine = np.diag([-1.0, 1.0, 3.0, 1.0])
    img = nb.Nifti1Image(data, affine)
    brain, inside, grid = working_image(img, nb.Nifti1Image((data > 0).astype(np.uint8), affine))
    assert np.allclose(grid.zooms, 1)
    assert nb.aff2axcodes(grid.affine) == ('R', 'A', 'S')
    expected = nb.affines.apply_affine(affine, np.argwhere(data > 0).mean(axis=0))
    found = nb.affines.apply_affine(grid.affine, np.argwhere(inside).mean(axis=0))
    assert np.allclose(found, expected, atol=0.6)
    assert brain[~inside].max() == 0


@pytest.fixture
def coarse(monkeypatch):
    """Let brains be segmented on 3 mm, in seconds."""
    monkeypatch.setattr(room_of_segmentation, 'ZOOM_MM', 3.0)
    stages = (
        Stage('Affine[0.1]', (40, 20), (2, 1), (1, 0)),
        Stage('SyN[0.2,3,0]', (10, 5), (2, 1), (1, 0), metric='CC', metric_parameter=2),
    )
    monkeypatch.setattr(room_of_segmentation, '_STAGES', stages)


@pytest.mark.slow
def test_structures_of_a_brain_in_another_pose(coarse):
    """The atlas's own brain, tilted by 10 degrees, moved and scaled, keeps its structures."""
    average = nb.load(room.template_file())
    tilt = np.deg2rad(10)
    world = np.eye(4)
    world[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    world[:3, :3] *= 1.06
    world[:3, 3] = 4, -7, 9
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -84, -110, -82
    grid = Grid((56, 72, 58), affine)
    data = resample(average, grid, world=world)
    mask = nb.Nifti1Image((data > 5).astype(np.uint8), affine)
    found = segment_brain(nb.Nifti1Image(data, affine), mask, seed=3, threads=1)
    truth = resample(nb.load(room.atlas_file()), found.grid, world=world, order=0)
    for number in (10, 49, 16, 12, 51):
        mine, real = found.labels == number, truth == number
        assert 2 * (mine & real).sum() / (mine.sum() + real.sum()) > 0.75, number
    parts = brain_volumes(found, measure_structures(found))
    expected = (np.asarray(average.dataobj) > 0).sum() / 1.06**3
    assert parts['EstimatedTotalIntraCranialVol'] == pytest.approx(expected, rel=0.05)
    # The atlas's own cortex is a third thinner than the grey matter of its average.
    labels = build_anatomy(2).labels
    cortex = ((labels > 1000) & (labels < 3000)).sum() * 8 / 1.06**3
    assert parts['Cortex'] == pytest.approx(cortex, rel=0.1)


class TestFusion:
    def test_sides_are_exchanged(self):
        labels = np.array([0, 17, 53, 1035, 2035, 16, 251, 2, 41])
        assert other_side(labels).tolist() == [0, 53, 17, 2035, 1035, 16, 251, 41, 2]
        numbers = np.array([0, *room.structures()])
        assert (other_side(other_side(numbers)) == numbers).all()

    def test_errors_to_either_side_cancel(self):
        """Two images of a ball, each shifted by 2 mm, one to each side."""
        radius = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0)
        truth = np.where(radius < 8, 17, np.where(radius < 15, 2, 0))
        images = [np.roll(truth, shift, axis=0) for shift in (-2, 2)]
        fused = fuse(images, (1, 1, 1))
        for number in (2, 17):
            alone, together = (
                2
                * ((found == number) & (truth == number)).sum()
                / ((found == number).sum() + (truth == number).sum())
                for found in (images[0], fused)
            )
            assert together > alone + 0.05

    def test_parcels_keep_their_sides(self):
        """Halves of the cortex of one side are parcels with a border that its mirror lacks."""
        carried = np.zeros((20, 20, 30), np.int32)
        carried[5:15, :, :12], carried[5:15, :, 12:] = 1030, 1034
        mirrored = np.zeros_like(carried)
        mirrored[5:15, :, :18], mirrored[5:15, :, 18:] = 1030, 1034
        assert (fuse_mirrored(carried, mirrored, (1, 1, 1)) == carried).all()

    def test_equal_images_stay_what_they_are(self):
        labels = np.zeros((20, 20, 20), np.int32)
        labels[:10], labels[10:, 5:] = 1035, 2
        assert (fuse([labels, labels], (1, 1, 1)) == labels).all()
