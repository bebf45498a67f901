"""Fixtures shared by all tests, and a sandbox that keeps tests off the network and the home."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Libraries read these when they are imported, so they are set before any test module is.
_CACHES = Path(tempfile.mkdtemp(prefix='tumsyn-tests-'))
os.environ['MPLBACKEND'] = 'Agg'
os.environ['MPLCONFIGDIR'] = str(_CACHES / 'matplotlib')
os.environ['TEMPLATEFLOW_HOME'] = str(_CACHES / 'templateflow')
os.environ['TEMPLATEFLOW_AUTOUPDATE'] = 'off'
os.environ['XDG_CACHE_HOME'] = str(_CACHES / 'cache')
os.environ['NO_ET'] = '1'
_THREADS = '1' if 'PYTEST_XDIST_WORKER' in os.environ else '2'
os.environ.setdefault('OMP_NUM_THREADS', _THREADS)
os.environ.setdefault('ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS', _THREADS)

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_sessionfinish():
    """Remove the caches of this process."""
    import shutil

    shutil.rmtree(_CACHES, ignore_errors=True)


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the checkout that the tests lie in."""
    return REPOSITORY


@pytest.fixture(scope='session')
def ellipsoid_scan():
    """An image of 3 mm whose brain is an ellipsoid of smooth noise, and its mask."""
    import nibabel as nb
    import numpy as np
    from scipy import ndimage

    shape = (36, 40, 34)
    index = np.argwhere(np.ones(shape)).reshape(*shape, 3) - (17.5, 19.5, 16.5)
    mask = np.square(index / (14, 16, 13)).sum(-1) < 1
    noise = np.random.default_rng(0).random(shape)
    image = ndimage.gaussian_filter(noise, 1).astype(np.float32)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    return nb.Nifti1Image(image, affine), nb.Nifti1Image(mask.astype(np.uint8), affine)


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real scans; its tests are skipped where it is absent.

    ``$TUMSYN_SHARED_DATA``, else ``../shared/data`` beside the checkout.
    """
    given = os.environ.get('TUMSYN_SHARED_DATA')
    folder = Path(given) if given else REPOSITORY.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder} (set TUMSYN_SHARED_DATA to use another folder)')
    return folder


@pytest.fixture(scope='session')
def parity(shared_data) -> Path:
    """Folder of numbers that the published modules produced."""
    folder = shared_data.parent / 'parity'
    if not folder.is_dir():
        pytest.skip(f'no parity figures at {folder}')
    return folder


@pytest.fixture(scope='session')
def phantom_dir(tmp_path_factory) -> Path:
    """A small BIDS dataset with known truth, made by our simulator at 3 mm; do not write to it."""
    from tumsyn_bids.simulation.dataset import write_phantom_dataset

    out = tmp_path_factory.mktemp('phantom') / 'ds-phantom'
    write_phantom_dataset(out, resolution_mm=3)
    return out


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a model with random weights, the same in every session."""
    import torch

    from tumsyn_bids.networks.model import Model, save_model
    from tumsyn_bids.networks.registry import get_config

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Model(get_config('tiny'))
    folder = tmp_path_factory.mktemp('models') / 'tiny'
    return save_model(network, folder, version='0', card={'training': 'none, random weights'})


@pytest.fixture(scope='session')
def sphere_labelmaps(tmp_path_factory) -> Path:
    """A folder with a head of nested spheres: ventricle, white matter, cortex, CSF."""
    import nibabel as nb
    import numpy as np

    index = np.stack(np.meshgrid(*[np.arange(60)] * 3, indexing='ij'), -1) - 29.5
    radius = np.linalg.norm(index, axis=-1)
    labels = np.zeros((60, 60, 60), dtype=np.int16)
    for limit, label in ((27, 24), (24, 3), (19, 2), (8, 4)):
        labels[radius < limit] = label
    folder = tmp_path_factory.mktemp('maps')
    nb.save(nb.Nifti1Image(labels, np.eye(4)), folder / 'spheres.nii.gz')
    return folder


@pytest.fixture(scope='session')
def train_part(sphere_labelmaps):
    """Train a part of a model's decoder on the nested spheres, on top of a model."""
    from tumsyn_bids.training.engine import EngineSettings
    from tumsyn_bids.training.synthesis import TrainingSettings, train_synthesis

    def train(
        out,
        start,
        recipe,
        *,
        steps=60,
        minutes=None,
        maps=None,
        pairs=(),
        accelerator='cpu',
        **more,
    ) -> Path:
        settings = TrainingSettings(steps=steps, learning_rate=1e-2, warm_up=2, ema=0.9, **more)
        return train_synthesis(
            out,
            labelmaps=maps or sphere_labelmaps,
            pairs=pairs,
            settings=settings,
            engine_settings=EngineSettings(
                accelerator, log_every=10, save_every_s=0, validate_every=3
            ),
            recipe=recipe,
            start=start,
            max_minutes=minutes,
        )

    return train
