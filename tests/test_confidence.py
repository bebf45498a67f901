"""Figures of confidence: a model that is right is trusted, one that is wrong is not."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.grids import Grid, resample
from tumsyn_bids.physics.expected import BRAIN_SHARES, expected_signals
from tumsyn_bids.prompt import parse_prompt
from tumsyn_bids.protocols import default_protocol
from tumsyn_bids.synthesis.confidence import THRESHOLDS, Confidence, Examiner
from tumsyn_bids.synthesis.synthesizer import BRIGHT

T1W, T2W = (default_protocol(name, 3.0) for name in ('T1w', 'T2w'))
SHAPE = (40, 44, 70)


def brain() -> np.ndarray:
    """0 outside, then white matter, cortex and fluid as shells of a ball."""
    index = np.indices(SHAPE) - np.array(SHAPE)[:, None, None, None] / 2
    radius = np.sqrt((index / np.array([18, 20, 32])[:, None, None, None]).__pow__(2).sum(axis=0))
    return np.digitize(radius, (0.6, 0.85, 1.0))


def picture(acquisition: Acquisition, noise: float = 0.0) -> nb.Nifti1Image:
    names = list(BRAIN_SHARES)
    signals = expected_signals(acquisition)
    levels = [signals[names.index(name)] for name in ('white_matter', 'cortex', 'csf')]
    image = np.array([*levels, 0.0])[brain()]
    image = image + noise * np.random.default_rng(0).standard_normal(SHAPE) * (image > 0)
    return nb.Nifti1Image((image * BRIGHT).astype(np.float32), np.eye(4))


@dataclass
class Encoded:
    grid: Grid
    mask: nb.Nifti1Image
    source: np.ndarray


class Oracle:
    """A synthesizer that knows the brain; of a source of a wrong contrast it makes nonsense."""

    def encode(self, img, *, mask, acquisition):
        grid = Grid.of(mask)
        source = resample(img, grid)
        self.fooled = not np.allclose(
            source[source > 0], resample(picture(acquisition), grid)[source > 0], atol=0.3 * BRIGHT
        )
        return Encoded(grid, mask, source)

    def decode(self, encoded, prompt, grid):
        if self.fooled:
            return np.random.default_rng(1).random(grid.shape, dtype=np.float32)
        return resample(picture(parse_prompt(prompt)), grid)


def examiner(image: nb.Nifti1Image, said: Acquisition) -> Examiner:
    oracle = Oracle()
    mask = nb.Nifti1Image((brain() < 3).astype(np.uint8), np.eye(4))
    return Examiner(oracle, oracle.encode(image, mask=mask, acquisition=said), said)


def test_right_image_of_a_right_source_passes():
    confidence = examiner(picture(T1W, 0.02), T1W).examine(picture(T2W), T2W)
    assert confidence.reconstruction > 0.98
    assert confidence.cycle > 0.98
    assert confidence.prompt_deviation < 0.05
    assert confidence.verdict == 'pass'
    assert confidence.warnings == []


def test_source_that_is_not_what_it_is_said_to_be_fails():
    confidence = examiner(picture(T2W), T1W).examine(picture(T2W), T2W)
    assert confidence.reconstruction < 0.2
    assert confidence.verdict == 'fail'
    assert 'does not recognise the source' in confidence.warnings[0]


def test_image_without_the_anatomy_of_its_source_fails():
    blank = nb.Nifti1Image(np.random.default_rng(2).random(SHAPE, 'f4') * BRIGHT, np.eye(4))
    confidence = examiner(picture(T1W), T1W).examine(blank, T2W)
    assert confidence.cycle < 0.2
    assert confidence.verdict == 'fail'


def test_image_of_another_contrast_than_the_prompt_deviates():
    examined = examiner(picture(T1W), T1W)
    assert examined.examine(picture(T1W), T2W).prompt_deviation > 0.35


def test_longer_echo_than_that_of_the_image_is_noticed():
    asked = T2W.replace(echo_time=0.3, flip_angle=180.0)
    examined = examiner(picture(T1W), T1W)
    right = examined.examine(picture(T2W), T2W).prompt_deviation
    assert examined.examine(picture(T2W.replace(echo_time=0.05)), T2W).prompt_deviation > right
    assert examined.examine(picture(asked), asked).prompt_deviation < 0.05


def test_voxels_that_are_mixtures_do_not_make_an_image_deviate():
    """Fluid of an acquired FLAIR is dark in ventricles, and half as bright as cortex in sulci."""
    flair = default_protocol('FLAIR', 3.0)
    image = picture(flair).get_fdata()
    blurred = ndimage.gaussian_filter(image, 1.2) / np.maximum(
        ndimage.gaussian_filter((image > 0).astype(float), 1.2), 1e-3
    )
    mixed = nb.Nifti1Image(np.where(brain() < 3, blurred, 0).astype(np.float32), np.eye(4))
    assert examiner(picture(T1W), T1W).examine(mixed, flair).prompt_deviation < 0.1


@pytest.mark.parametrize(
    ('name', 'verdict'),
    [('reconstruction', 'fail'), ('cycle', 'fail'), ('prompt_deviation', 'warn')],
)
def test_what_could_not_be_looked_at_is_no_reason_to_trust_an_image(name, verdict):
    good = {'reconstruction': 0.99, 'cycle': 0.99, 'prompt_deviation': 0.01}
    unknown = Confidence(**{**good, name: float('nan')})
    assert unknown.verdict == verdict
    assert name not in unknown.to_dict()
    (warning,) = unknown.warnings
    assert 'could not be looked at' in warning


def test_prompt_is_compared_with_the_tissues_that_are_there():
    """With all fluid mixed with cortex, white matter and cortex still tell the contrast."""
    examined = examiner(picture(T1W), T1W)
    examined._shares[2] = np.minimum(examined._shares[2], 0.9)
    right = examined.examine(picture(T2W), T2W).prompt_deviation
    assert right < 0.1 < examined.examine(picture(T1W), T2W).prompt_deviation


@pytest.mark.parametrize('name', THRESHOLDS)
def test_verdict_is_that_of_the_worst_figure(name):
    good = {'reconstruction': 1.0, 'cycle': 1.0, 'prompt_deviation': 0.0}
    warn, fail, sign = THRESHOLDS[name]
    assert Confidence(**good).verdict == 'pass'
    assert Confidence(**{**good, name: warn - sign * 0.01}).verdict == 'warn'
    assert Confidence(**{**good, name: fail - sign * 0.01}).verdict == 'fail'
