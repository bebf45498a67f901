"""One call of antsRegistration, with images in memory and its files in a folder that vanishes.

The simplified interface of ANTsPy fixes step sizes and can set the random seed only for the whole
process; this one states every stage.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    apply=None,
):
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
    apply : callable, optional
        Called with the forward (moving to fixed image) and the inverse list of transform files,
        as ``ants.apply_transforms`` takes them, and the inversion flags of the latter, while the
        files exist; its result is returned beside the matrix.

    Returns
    -------
    ndarray, shape (4, 4)
        The linear part, fixed to moving.
    object
        What ``apply`` returned, else ``None``.

    Raises
    ------
    RuntimeError
        If antsRegistration fails.
    """
    import ants
    from ants.internal import get_pointer_string

    fixed_id, moving_id = get_pointer_string(fixed), get_pointer_string(moving)
    masks = [
        'NA' if mask is None else get_pointer_string(mask) for mask in (fixed_mask, moving_mask)
    ]
    with tempfile.TemporaryDirectory(prefix='tumsyn-reg-') as folder:
        first = write_itk(start, Path(folder) / 'start.txt')
        prefix = str(Path(folder) / 'out_')
        arguments = ['--dimensionality', '3', '-r', str(first)]
        for stage in stages:
            arguments += stage.arguments(fixed_id, moving_id)
        arguments += ['-x', f'[{masks[0]},{masks[1]}]', '-u', '0', '-z', '1']
        arguments += ['--output', f'[{prefix}]', '--float', '1']
        arguments += ['--random-seed', str(seed or 1)]
        ants.registration(arguments, None)
        linear = f'{prefix}0GenericAffine.mat'
        if not Path(linear).exists():
            raise RuntimeError('antsRegistration wrote no transform')
        forward, inverse, flags = [linear], [linear], [True]
        if Path(f'{prefix}1Warp.nii.gz').exists():
            forward = [f'{prefix}1Warp.nii.gz', linear]
            inverse, flags = [linear, f'{prefix}1InverseWarp.nii.gz'], [True, False]
        result = None if apply is None else apply(forward, inverse, flags)
        return read_itk(linear), result


def _levels(numbers: Sequence[int]) -> str:
    return 'x'.join(str(number) for number in numbers)
