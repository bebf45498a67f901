"""Prompts as the tensors that the prompt encoder takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..networks.text import numeric_features
from ..networks.tokenizer import get_tokenizer
from ..physics.expected import expected_signals
from ..prompt import parse_prompt


def prompt_tensors(
    prompts: Sequence[str], context_length: int = 90
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenise prompts and read their numbers.

    Parameters
    ----------
    prompts : sequence of str
        Quotation marks are taken out, as the published network was trained.
    context_length : int

    Returns
    -------
    ids : Tensor of int64, shape (B, context_length)
        Padded with 0.
    numbers : Tensor of float32, shape (B, NUMERIC_FEATURES + N_SIGNALS)
        Its numbers, and the signals of the tissues that they make.

    Raises
    ------
    UsageError
        If a prompt has more tokens than fit.
    """
    prompts = [prompt.replace('"', '') for prompt in prompts]
    ids = torch.zeros(len(prompts), context_length, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = get_tokenizer().encode(prompt, context_length)
        row[: len(tokens)] = torch.tensor(tokens)
    read = [parse_prompt(prompt) for prompt in prompts]
    numbers = [np.concatenate([numeric_features(acq), expected_signals(acq)]) for acq in read]
    return ids, torch.from_numpy(np.stack(numbers))
