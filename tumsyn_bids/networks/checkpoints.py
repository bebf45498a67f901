"""The published checkpoints: reading their layouts without running code from them.

Two files belong together. The synthesis checkpoint holds its weights under ``model_G.sd_G``, the
checkpoint of the contrastive pre-training under ``model_state_dict``; of the latter only the text
half is read, and the file is memory-mapped, so that its visual half and the state of its
optimiser never enter memory.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import ModelError
from .config import DecoderConfig, EncoderConfig, TextConfig
from .model import Model
from .registry import get_config
from .weights import check_state

State = dict[str, torch.Tensor]

#: Of the text half, what inference has no use for: the visual tower and the loss's temperature.
_NOT_TEXT = ('visual.', 'logit_scale')
#: What a network that is trained on several GPUs puts before the names of its weights.
_WRAPPED = 'module.'
_DOWNLOAD_AGAIN = 'Download it again and compare its checksum with the one on its page'
_NAMED = 10


def read_synthesis_state(path: str | Path) -> State:
    """Read the weights of a published synthesis checkpoint.

    Parameters
    ----------
    path : path-like
        ``{'model_G': {'sd_G': weights, ...}, ...}`` as ``torch.save`` writes it.

    Returns
    -------
    dict of str to Tensor
        Memory-mapped.

    Raises
    ------
    ModelError
        If the file is absent, cut off, of another kind, or holds more than weights.
    """
    content = _load(Path(path))
    inner = content.get('model_G')
    state = inner.get('sd_G') if isinstance(inner, Mapping) else None
    if state is None:
        raise _another_kind(path, 'synthesis', 'model_G.sd_G', content)
    return _tensors(path, state)


def read_text_state(path: str | Path) -> State:
    """Read the text half of a published pre-training checkpoint.

    Parameters
    ----------
    path : path-like
        ``{'model_state_dict': weights, ...}`` as ``torch.save`` writes it.

    Returns
    -------
    dict of str to Tensor
        Memory-mapped; without the visual tower and ``logit_scale``.

    Raises
    ------
    ModelError
        As :func:`read_synthesis_state`.
    """
    content = _load(Path(path))
    state = content.get('model_state_dict')
    if state is None:
        raise _another_kind(path, 'text-encoder', 'model_state_dict', content)
    return {k: v for k, v in _tensors(path, state).items() if not k.startswith(_NOT_TEXT)}


def published_model(
    synthesis: str | Path,
    text_encoder: str | Path,
    *,
    name: str = 'official',
    text_heads: int | None = None,
) -> Model:
    """Build the published network from its two checkpoints.

    Widths and depths are those of the weights; everything else is as the ``official``
    configuration says.

    Parameters
    ----------
    synthesis, text_encoder : path-like
        The two files.
    name : str
        Of the configuration.
    text_heads : int, optional
        Attention heads of the text transformer, which no shape tells. CLIP's rule, one per 64
        channels, if not given.

    Returns
    -------
    Model
        Its tensors are still mapped to the files.

    Raises
    ------
    ModelError
        If a file cannot be read, keys are missing or unexpected, shapes do not fit together or
        weights are not finite.
    """
    synthesis_state, text_state = read_synthesis_state(synthesis), read_text_state(text_encoder)
    encoder, decoder = _synthesis_sizes(synthesis, synthesis_state)
    config = dataclasses.replace(
        get_config('official'),
        name=name,
        text=_text_sizes(text_encoder, text_state, text_heads),
        encoder=encoder,
        decoder=decoder,
    )
    with torch.device('meta'):
        network = Model(config)
    for path, part, state in (
        (synthesis, network.synthesis, synthesis_state),
        (text_encoder, network.prompt.text, text_state),
    ):
        check_state(
            path,
            part.state_dict(),
            state,
            remedy='Give the two files of one published release, unchanged',
            remedy_broken=_DOWNLOAD_AGAIN,
        )
        part.load_state_dict(state, assign=True)
    return network.eval()


def _load(path: Path) -> Mapping:
    archive = _is_archive(path)
    try:
        # Files older than PyTorch 1.6 are no archives and cannot be mapped.
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=archive or None)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            'is cut off or is not a PyTorch checkpoint', path=path, remedy=_DOWNLOAD_AGAIN
        ) from error
    if not isinstance(content, Mapping):
        raise ModelError(
            f'holds a {type(content).__name__} and not a checkpoint',
            path=path,
            remedy='Give the file of the published release, unchanged',
        )
    return content


def _is_archive(path: Path) -> bool:
    try:
        with path.open('rb') as file:
            begins_as_one = file.read(2) == b'PK'
    except OSError as error:
        raise ModelError(
            f'cannot be read ({error.strerror})', path=path, remedy='Check the path'
        ) from error
    if begins_as_one:
        problem = _damage(path)
        if problem:
            raise ModelError(problem, path=path, remedy=_DOWNLOAD_AGAIN)
    return begins_as_one


def _damage(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except zipfile.BadZipFile:
        return 'is cut off: it begins as a checkpoint and its end is missing'
    return broken and f'is damaged: {broken} in it does not have its checksum'


def _refused(path: Path, reason: str) -> ModelError:
    """Word the refusal of the restricted unpickler, which has run nothing."""
    found = re.search(r'GLOBAL ([\w.]+)', reason)
    if found is None:
        return ModelError(
            'is cut off or is not a PyTorch checkpoint', path=path, remedy=_DOWNLOAD_AGAIN
        )
    return ModelError(
        f'holds more than weights: it asks for {found[1]}. Reading it could run code, so it was '
        'not read',
        path=path,
        remedy='Give a file from a source you trust that holds nothing but tensors',
    )


def _another_kind(path, kind: str, wanted: str, content: Mapping) -> ModelError:
    keys = ', '.join(sorted(map(str, content))[:_NAMED]) or 'nothing'
    other = {'synthesis': 'model_state_dict', 'text-encoder': 'model_G'}[kind]
    swapped = other in content
    return ModelError(
        f'is not a published {kind} checkpoint: {wanted} is missing (it holds {keys})',
        path=path,
        remedy='The two files seem to be exchanged: --synthesis takes checkpoint.pt, '
        '--text-encoder takes checkpoint_CLIP.pt'
        if swapped
        else 'Give the file of the published release, unchanged',
    )


def _tensors(path, state) -> State:
    if isinstance(state, Mapping) and all(isinstance(v, torch.Tensor) for v in state.values()):
        wrapped = bool(state) and all(str(key).startswith(_WRAPPED) for key in state)
        return {str(k).removeprefix(_WRAPPED) if wrapped else k: v for k, v in state.items()}
    raise ModelError(
        'its weights are not a table of tensors',
        path=path,
        remedy='Give the file of the published release, unchanged',
    )


def _synthesis_sizes(path, state: State) -> tuple[EncoderConfig, DecoderConfig]:
    encoder = EncoderConfig(
        n_feats=_size(path, state, 'encoder.head.0.weight', 0),
        # The closing convolution is numbered after the last residual block.
        n_resblocks=_last(state, r'encoder\.body\.(\d+)\.weight'),
        out_dim=_size(path, state, 'encoder.tail.0.weight', 0),
    )
    last = _last(state, r'imnet\.layers\.(\d+)\.weight')
    hidden = [_size(path, state, f'imnet.layers.{index}.weight', 0) for index in range(0, last, 2)]
    return encoder, DecoderConfig(hidden=tuple(hidden))


def _text_sizes(path, state: State, heads: int | None) -> TextConfig:
    width = _size(path, state, 'text_projection', 0)
    heads = heads or max(width // 64, 1)
    if width % heads:
        raise ModelError(
            f'{heads} attention heads do not divide its width of {width}',
            path=path,
            field='--text-heads',
            remedy='Give another number',
        )
    return TextConfig(
        width=width,
        layers=_last(state, r'transformer\.resblocks\.(\d+)\..*') + 1,
        heads=heads,
        embed_dim=_size(path, state, 'text_projection', 1),
        context_length=_size(path, state, 'positional_embedding', 0),
    )


def _size(path, state: State, key: str, axis: int) -> int:
    if key not in state or state[key].ndim <= axis:
        raise ModelError(
            'the weights are not those of the published network: '
            f'{key} is missing or has no size; they begin with {", ".join(sorted(state)[:3])}',
            path=path,
            remedy='Give the file of the published release, unchanged',
        )
    return state[key].shape[axis]


def _last(state: State, pattern: str) -> int:
    """Return the largest number in keys of a pattern, -1 where there is none."""
    matches = (re.fullmatch(pattern, key) for key in state)
    return max((int(match[1]) for match in matches if match), default=-1)
