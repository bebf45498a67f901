"""Do weights fit a network? What is wrong with those that do not, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import ModelError

#: How many keys a message names.
_NAMED = 10


def misfit(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str | None:
    """Say which keys are missing or unexpected, which sizes or kinds differ; None if nothing does.

    Parameters
    ----------
    expected : mapping of str to Tensor
        ``state_dict()`` of the network; may lie on the ``meta`` device.
    state : mapping of str to Tensor
        The weights that were read.
    """
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        return f'{_listed("missing", missing)}; {_listed("unexpected", extra)}'
    wrong = [
        f'{key} is {tuple(state[key].shape)} and not {tuple(value.shape)}'
        for key, value in expected.items()
        if state[key].shape != value.shape
    ]
    if wrong:
        return _listed('of another size', wrong)
    whole = [
        f'{key} is {state[key].dtype}'
        for key, value in expected.items()
        if value.is_floating_point() and not state[key].is_floating_point()
    ]
    return _listed('without decimals', whole) if whole else None


def check_state(
    path: str | Path,
    expected: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    *,
    remedy: str,
    remedy_broken: str | None = None,
) -> None:
    """Refuse weights that do not fit a network or are not finite.

    Parameters
    ----------
    path : path-like
        Where they were read from.
    expected, state
        As of :func:`misfit`.
    remedy : str
        What to do about it.
    remedy_broken : str, optional
        What to do about weights that are not finite, if something else.

    Raises
    ------
    ModelError
        Names the keys that are missing or unexpected, the sizes that differ, or the weights that
        are not finite.
    """
    problem = misfit(expected, state)
    if problem:
        raise ModelError(
            f'the weights are of another network: {problem}', path=path, remedy=remedy
        )
    broken = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(
            f'holds weights that are not finite: {_listed("broken", broken)}',
            path=path,
            remedy=remedy_broken or remedy,
        )


def _listed(word: str, items: list[str]) -> str:
    if not items:
        return f'none {word}'
    rest = f' and {len(items) - _NAMED} more' if len(items) > _NAMED else ''
    return f'{len(items)} {word}: {", ".join(items[:_NAMED])}{rest}'
