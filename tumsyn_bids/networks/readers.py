"""What reads a prompt: the text transformer, or one of the stand-ins that it is compared with.

The stand-ins have no weights of their own. They are the paper's ablations: labels in the place of
words, and embeddings that another text encoder has made.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..acquisition import CONTRASTS
from .config import TextConfig
from .text import TextEncoder


class LabelReader(nn.Module):
    """One-hot labels of the modality and of the scanner, side by side.

    Parameters
    ----------
    config : TextConfig
        With ``scanners``.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.n_scanners = len(config.scanners)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return labels, shape (B, 7 + n_scanners), of ids of shape (B, 2).

        An id is a place in the list, counted from 1; 0 is unknown and gives zeros.
        """
        parts = (len(CONTRASTS), self.n_scanners)
        hot = [F.one_hot(ids[:, k], n + 1)[:, 1:] for k, n in enumerate(parts)]
        return torch.cat(hot, dim=1).float()


class TableReader(nn.Module):
    """Embeddings that were given with the model, by the place of the prompt in its list.

    Parameters
    ----------
    config : TextConfig
        With ``prompts``.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.register_buffer('embeddings', torch.zeros(len(config.prompts), config.embed_dim))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return embeddings, shape (B, embed_dim), of ids of shape (B, 1)."""
        return self.embeddings[ids[:, 0]]


def prompt_reader(config: TextConfig) -> nn.Module:
    """Return the module that a configuration names.

    Raises
    ------
    ValueError
        If there is no such reader.
    """
    readers = {'transformer': TextEncoder, 'labels': LabelReader, 'table': TableReader}
    if config.reader not in readers:
        raise ValueError(f'no reader {config.reader!r}; known: {", ".join(readers)}')
    return readers[config.reader](config)
