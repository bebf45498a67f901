"""What the brightest part of a model's images lacks, measured on people of its training."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import nibabel as nb
import numpy as np
import torch

from ..acquisition import Acquisition
from ..files import write_text
from ..grids import Grid
from ..networks.model import CONFIG, load_model
from ..prompt import render_prompt
from ..protocols import default_protocol
from ..synthesis.synthesizer import BRIGHT, Synthesizer, find_device
from ..synthesis.tails import fit_tail
from .people import PairedSubject, load_paired_subjects

#: Contrasts whose brightest part no source knows: what took up contrast agent would be made up.
NOT_RESTORED = ('T1CE',)

LOGGER = logging.getLogger(__name__)


def measure_tails(
    model: str | Path,
    pairs: Sequence[str | Path],
    *,
    exclude: tuple[str, ...] = (),
    device: str = 'auto',
    threads: int | None = None,
) -> dict[str, list]:
    """Fit and write the curves of :mod:`tumsyn_bids.synthesis.tails` of a model.

    Every contrast of a person is made from every other one, with whole brains.

    Parameters
    ----------
    model : path-like
        Model folder; its curves, if it has any, are replaced when the others are measured.
    pairs : sequence of path-like
        As for :func:`~tumsyn_bids.training.people.load_paired_subjects`.
    exclude : tuple of str
        People left out.
    device : str
    threads : int, optional

    Returns
    -------
    dict of str to list
        The curve of each contrast.

    Raises
    ------
    ModelError
        If the folder does not hold a model.
    UsageError
        If the device is not there, or the datasets cannot be read.
    """
    # As a path: a folder that has the name of the embedded model is not that model.
    folder = Path(model).absolute()
    loaded = load_model(folder)
    # What the images lack without any.
    bare = {key: value for key, value in loaded.card.items() if key != 'tails'}
    if threads is not None:
        torch.set_num_threads(threads)
    synthesizer = Synthesizer(replace(loaded, card=bare), find_device(device))
    found: dict[str, list] = {}
    for dataset in pairs:
        for person in load_paired_subjects(dataset, exclude=exclude):
            LOGGER.info('%s: %s', person.label, ', '.join(person.images))
            for target, values in _made_and_true(synthesizer, person):
                found.setdefault(target, []).append(values)
    curves = {name: fit_tail(values) for name, values in sorted(found.items())}
    path = folder / CONFIG
    description = json.loads(path.read_text())
    description['card'] = {**bare, 'tails': curves}
    write_text(path, json.dumps(description, indent=2) + '\n')
    return curves


def _made_and_true(synthesizer: Synthesizer, person: PairedSubject):
    affine = np.eye(4)
    mask = nb.Nifti1Image(person.mask.astype(np.uint8), affine)
    encoded = {
        name: synthesizer.encode(
            nb.Nifti1Image(image, affine), mask=mask, acquisition=person.acquisition(name)
        )
        for name, image in person.images.items()
    }
    pairs = permutations(person.images, 2)
    for source, target in (pair for pair in pairs if pair[1] not in NOT_RESTORED):
        prompt = render_prompt(_asked(person.acquisition(target)))
        made = synthesizer.decode(encoded[source], prompt, Grid.of(mask)) / BRIGHT
        yield target, (made[person.mask], person.images[target][person.mask])


def _asked(known: Acquisition) -> Acquisition:
    """Return what is asked for where nothing is documented: the default protocol."""
    if known.repetition_time is not None:
        return known
    usual = default_protocol(known.contrast, known.field_strength)
    return usual.replace(age=known.age, sex=known.sex, voxel_size=known.voxel_size)
