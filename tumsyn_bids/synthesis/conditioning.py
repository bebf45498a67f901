"""Prompts as the tensors that the prompt encoder takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..acquisition import CONTRASTS, Acquisition
from ..errors import UsageError
from ..networks.config import TextConfig
from ..networks.embeddings import clean_prompt
from ..networks.text import numeric_features
from ..networks.tokenizer import get_tokenizer
from ..physics.expected import expected_signals
from ..prompt import parse_prompt


def prompt_tensors(
    prompts: Sequence[str], text: TextConfig | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenise prompts and read their numbers.

    Parameters
    ----------
    prompts : sequence of str
        Quotation marks are taken out, as the published network was trained.
    text : TextConfig, optional
        Of the network that will read them; that of the published network if not given.

    Returns
    -------
    ids : Tensor of int64, shape (B, L)
        Tokens padded with 0 to the context length; or two labels, or one place in a table,
        where these stand in the place of the text encoder.
    numbers : Tensor of float32, shape (B, NUMERIC_FEATURES + N_SIGNALS)
        Its numbers, and the signals of the tissues that they make.

    Raises
    ------
    UsageError
        If a prompt has more tokens than fit, or is not in the table.
    """
    text = text or TextConfig()
    prompts = [clean_prompt(prompt) for prompt in prompts]
    read = [parse_prompt(prompt) for prompt in prompts]
    if text.reader == 'labels':
        ids = torch.tensor([_labels(acquisition, text) for acquisition in read])
    elif text.reader == 'table':
        ids = torch.tensor(_places(prompts, text))[:, None]
    else:
        ids = _tokens(prompts, text.context_length)
    numbers = [np.concatenate([numeric_features(acq), expected_signals(acq)]) for acq in read]
    return ids, torch.from_numpy(np.stack(numbers))


def scanner_label(acquisition: Acquisition) -> str | None:
    """Return ``3.0 Siemens``; None unless field strength and manufacturer are both known."""
    if acquisition.field_strength is None or acquisition.manufacturer is None:
        return None
    return f'{acquisition.field_strength:.1f} {acquisition.manufacturer}'


def _tokens(prompts: list[str], context_length: int) -> torch.Tensor:
    ids = torch.zeros(len(prompts), context_length, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = get_tokenizer().encode(prompt, context_length)
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


def _labels(acquisition: Acquisition, text: TextConfig) -> tuple[int, int]:
    """Return modality and scanner, counted from 1; 0 is what is unknown or has no label."""
    names, label = list(CONTRASTS), scanner_label(acquisition)
    modality = 1 + names.index(acquisition.contrast) if acquisition.contrast else 0
    return modality, 1 + text.scanners.index(label) if label in text.scanners else 0


def _places(prompts: list[str], text: TextConfig) -> list[int]:
    places = {prompt: place for place, prompt in enumerate(text.prompts)}
    missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in places]
    if missing:
        raise UsageError(
            f'the model has no embedding of {len(missing)} of the prompts, such as "{missing[0]}"',
            field='prompt',
            remedy='Embed it with the text encoder that the model was trained with, and add it '
            'with tumsyn models embed',
        )
    return [places[prompt] for prompt in prompts]
