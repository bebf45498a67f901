"""Batches of stage 1: images of people, real or simulated, each of another class of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..acquisition import Acquisition
from ..errors import UsageError
from ..networks.vision import halve_and_crop
from ..prompt import render_prompt
from ..simulation.draw import FAMILIES, draw_acquisition, draw_person
from ..simulation.generator import (
    TissueVolume,
    draw_grid,
    draw_matrix,
    draw_subject,
    load_tissue_volume,
    render,
    sample_image,
)
from .corruption import BRIGHTEST
from .people import PairedSubject, load_paired_subjects

#: Classes of simulated images: a family of sequences at a field strength.
CLASSES = tuple((index, field) for index in range(len(FAMILIES)) for field in (1.5, 3.0))


@dataclass(frozen=True)
class Scans:
    """Whose images batches are drawn from.

    Attributes
    ----------
    volumes : list of TissueVolume
        People to be simulated.
    people : list of PairedSubject
        Real people.
    """

    volumes: list[TissueVolume]
    people: list[PairedSubject]

    @cached_property
    def classes(self) -> tuple:
        """What a batch has at most once.

        Entries of :data:`CLASSES` if there is someone to simulate, then the protocols of the real
        images as a prompt tells them, without person and voxel size.
        """
        return (CLASSES if self.volumes else ()) + tuple(self._by_protocol)

    @cached_property
    def _by_protocol(self) -> dict[str, list[tuple[PairedSubject, str]]]:
        found: dict[str, list[tuple[PairedSubject, str]]] = {}
        for person in self.people:
            for contrast in person.images:
                found.setdefault(_protocol(person, contrast), []).append((person, contrast))
        return dict(sorted(found.items()))

    def draw_batch(
        self, rng: np.random.Generator, size: int, count: int
    ) -> tuple[torch.Tensor, list[Acquisition]]:
        """Draw images of pairwise different classes.

        Parameters
        ----------
        rng : numpy.random.Generator
        size : int
            Edge of an image in voxels of 2 mm.
        count : int
            At most as many as there are classes.

        Returns
        -------
        Tensor of float32, shape (count, 1, size, size, size)
            The 98th percentile of a brain is 1.
        list of Acquisition
            How they were made.
        """
        chosen = rng.choice(len(self.classes), count, replace=False)
        items = [self._draw(rng, size, self.classes[index]) for index in chosen]
        return torch.stack([image for image, _ in items]), [shown for _, shown in items]

    def _draw(self, rng, size: int, wanted) -> tuple[torch.Tensor, Acquisition]:
        if isinstance(wanted, str):
            candidates = self._by_protocol[wanted]
            image, shown = _acquired(rng, *candidates[rng.integers(len(candidates))], size)
        else:
            volume = self.volumes[rng.integers(len(self.volumes))]
            image, shown = _simulated(rng, volume, size, *wanted)
        return halve_and_crop(torch.from_numpy(image.clip(0, BRIGHTEST)), size), shown


def _protocol(person: PairedSubject, contrast: str) -> str:
    acquisition = person.acquisition(contrast)
    return render_prompt(acquisition.replace(age=None, sex=None, voxel_size=None))


def _acquired(rng, person: PairedSubject, contrast: str, size: int):
    """Take an acquired image, moved and bent a little."""
    image = person.images[contrast]
    grid = draw_grid(
        rng,
        image.shape,
        2 * size,
        centre=_middle(image.shape),
        matrix=draw_matrix(rng, rotation_deg=10, scale=0.08),
        bend_voxels=2.0,
    )
    return sample_image(image, grid), person.acquisition(contrast)


def _simulated(rng, volume: TissueVolume, size: int, family: int, field: float):
    shape = volume.tissue.shape
    grid = draw_grid(rng, shape, 2 * size, centre=_middle(shape), matrix=draw_matrix(rng))
    wanted = draw_acquisition(rng, FAMILIES[family].contrast, family=FAMILIES[family]).replace(
        field_strength=field
    )
    image = render(draw_subject(rng, volume, grid), wanted)
    return image, wanted.replace(**draw_person(rng), voxel_size=(1.0, 1.0, 1.0))


def _middle(shape: tuple[int, ...]) -> np.ndarray:
    return (np.array(shape) - 1) / 2


def load_people(
    datasets: Sequence[str | Path], *, exclude: tuple[str, ...] = ()
) -> list[PairedSubject]:
    """Read the people of derivative datasets, those with a single image too.

    Parameters
    ----------
    datasets : sequence of path-like
        As :func:`~tumsyn_bids.training.people.load_paired_subjects` takes them.
    exclude : tuple of str
        People left out.

    Raises
    ------
    UsageError
        If one holds no image that can be used, or images of a session on different grids.
    """
    return [
        person
        for path in datasets
        for person in load_paired_subjects(path, exclude=exclude, at_least=1)
    ]


def list_labelmaps(folder: str | Path | None) -> list[str]:
    """Return the names of the label maps in a folder, sorted; none without a folder."""
    return [] if folder is None else sorted(path.name for path in Path(folder).glob('*.nii*'))


def pick_scans(
    names: Sequence[str], labelmaps: str | Path | None, people: Sequence[PairedSubject]
) -> Scans:
    """Choose whom to draw from.

    Parameters
    ----------
    names : sequence of str
        Files of ``labelmaps`` and labels of ``people``.
    labelmaps : path-like or None
        Folder of head label maps.
    people : sequence of PairedSubject

    Raises
    ------
    UsageError
        If someone is not there.
    """
    wanted = set(names)
    files = [name for name in list_labelmaps(labelmaps) if name in wanted]
    chosen = [person for person in people if person.label in wanted]
    missing = sorted(wanted - set(files) - {person.label for person in chosen})
    if missing:
        raise UsageError(
            f'{", ".join(missing)} not found',
            path=labelmaps,
            remedy='Give the label maps (--labelmaps) and the datasets (--pairs) of the training',
        )
    return Scans([load_tissue_volume(Path(labelmaps) / name) for name in files], chosen)
