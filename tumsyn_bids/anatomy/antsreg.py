"""One call of antsRegistration, with images in memory and its files in a folder that vanishes.

The simplified interface of ANTsPy fixes step sizes and can set the random seed only for the whole
process; this one states every stage.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ScanError
from .conversion import read_itk, write_itk

THREADS_VARIABLE = 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'


@dataclass(frozen=True)
class Stage:
    """A stage of a registration, from coarse to fine.

    Attributes
    ----------
    transform : str
        As antsRegistration spells it, e.g. ``'Rigid[0.1]'`` or ``'SyN[0.2,3,0]'``.
    iterations, shrink, smoothing : tuple of int
        At each level; smoothing is in voxels.
    sampling : float
        Share of the voxels, on a regular grid, that linear stages compare.
    metric : {'MI', 'CC'}
    metric_parameter : int
        Bins of MI, radius of CC.
    """

    transform: str
    iterations: tuple[int, ...]
    shrink: tuple[int, ...]
    smoothing: tuple[int, ...]
    sampling: float = 1.0
    metric: str = 'MI'
    metric_parameter: int = 32

    def arguments(self, fixed: str, moving: str) -> list[str]:
        """Return the arguments of antsRegistration for this stage."""
        sampled = f',Regular,{self.sampling}' if self.sampling < 1 else ''
        return [
            '--transform',
            self.transform,
            '--metric',
            f'{self.metric}[{fixed},{moving},1,{self.metric_parameter}{sampled}]',
            '--convergence',
            f'[{_levels(self.iterations)},1e-6,10]',
            '--shrink-factors',
            _levels(self.shrink),
            '--smoothing-sigmas',
            _levels(self.smoothing) + 'vox',
        ]


def limit_threads(threads: int | None) -> None:
    """Ask ITK to use this many threads in this process.

    ITK reads the variable once, at its first use in a process: set it before, or start each step
    in a process of its own, as Nipype does.
    """
    if threads:
        os.environ[THREADS_VARIABLE] = str(int(threads))


def register_stages(
    fixed,
    moving,
    stages: Sequence[Stage],
    *,
    start: np.ndarray,
    seed: int,
    fixed_mask=None,
    moving_mask=None,
    inverse: Callable[[list[str], list[bool]], Any] | None = None,
) -> tuple[np.ndarray, Any]:
    """Run antsRegistration.

    Parameters
    ----------
    fixed, moving : ants.ANTsImage
    stages : sequence of Stage
    start : ndarray, shape (4, 4)
        Fixed to moving RAS+ world coordinates.
    seed : int
        Of ITK's random numbers; not 0, which ITK takes for the clock.
    fixed_mask, moving_mask : ants.ANTsImage, optional
        Where to compare, at all stages.
    inverse : callable, optional
        Called with the transform files that carry an image from the fixed to the moving grid, in
        the order of ``ants.apply_transforms``, and which of them are to be inverted, while the
        files exist.

    Returns
    -------
    ndarray, shape (4, 4)
        The linear part, fixed to moving.
    object
        What ``inverse`` returned, else ``None``.

    Raises
    ------
    ScanError
        If antsRegistration fails.
    """
    with tempfile.TemporaryDirectory(prefix='tumsyn-reg-') as folder:
        prefix = str(Path(folder) / 'out_')
        linear, field = f'{prefix}0GenericAffine.mat', f'{prefix}1InverseWarp.nii.gz'
        _run(fixed, moving, stages, start, seed, (fixed_mask, moving_mask), prefix, linear)
        files, inverted = [linear], [True]
        if Path(field).exists():
            files, inverted = [linear, field], [True, False]
        return read_itk(linear), inverse(files, inverted) if inverse else None


def register_composite(
    fixed,
    moving,
    stages: Sequence[Stage],
    *,
    start: np.ndarray,
    seed: int,
    folder: str | Path,
    fixed_mask=None,
    moving_mask=None,
) -> tuple[Path, Path]:
    """Run antsRegistration and keep its transforms, each way in one file.

    Parameters
    ----------
    fixed, moving, stages, start, seed, fixed_mask, moving_mask
        As for :func:`register_stages`.
    folder : path-like
        Where the files go.

    Returns
    -------
    forward, inverse : Path
        ITK composite transforms, HDF5. ``forward`` maps points of the fixed image to points of
        the moving one: it resamples the moving image onto the fixed one.

    Raises
    ------
    ScanError
        If antsRegistration fails.
    """
    prefix = str(Path(folder) / 'out_')
    forward, inverse = f'{prefix}Composite.h5', f'{prefix}InverseComposite.h5'
    masks = fixed_mask, moving_mask
    _run(fixed, moving, stages, start, seed, masks, prefix, forward, '-a', '1')
    return Path(forward), Path(inverse)


def _run(fixed, moving, stages, start, seed, masks, prefix: str, expected: str, *more) -> None:
    """Call antsRegistration; it has to leave the file that is expected of it."""
    import ants
    from ants.internal import get_pointer_string

    ids = get_pointer_string(fixed), get_pointer_string(moving)
    regions = ['NA' if mask is None else get_pointer_string(mask) for mask in masks]
    first = write_itk(start, Path(prefix).parent / 'start.txt')
    arguments = ['--dimensionality', '3', '-r', str(first)]
    for stage in stages:
        arguments += stage.arguments(*ids)
    arguments += ['-x', f'[{regions[0]},{regions[1]}]', '-u', '0', '-z', '1', *more]
    arguments += ['--output', f'[{prefix}]', '--float', '1', '--random-seed', str(seed or 1)]
    try:
        ants.registration(arguments, None)
        failed = not Path(expected).is_file()
    except (RuntimeError, OSError) as error:
        raise _failure() from error
    if failed:
        raise _failure()


def _failure() -> ScanError:
    return ScanError('ANTs could not register the image', remedy='Check that it shows a head')


def _levels(numbers: Sequence[int]) -> str:
    return 'x'.join(str(number) for number in numbers)
