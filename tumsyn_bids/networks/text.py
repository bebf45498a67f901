"""The text transformer of CLIP, and the embedding of the prompt's numbers."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from ..acquisition import CONTRASTS, Acquisition
from .config import TextConfig


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU that CLIP was trained with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """A pre-norm transformer layer, named as in CLIP's checkpoints."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width),
                gelu=QuickGELU(),
                c_proj=nn.Linear(4 * width, width),
            )
        )
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of layers; exists to give the checkpoints' key names."""

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class TextEncoder(nn.Module):
    """Token ids to one embedding per prompt, read at the end-of-text token.

    Parameters
    ----------
    config : TextConfig

    Notes
    -----
    The embedding is projected and not normalised, which is what the published synthesis network
    is fed with.
    """

    FULL_VOCABULARY = 49408

    def __init__(self, config: TextConfig):
        super().__init__()
        rows = self.FULL_VOCABULARY
        if config.vocabulary is not None:
            rows = len(config.vocabulary) + 1
            table = torch.full((self.FULL_VOCABULARY,), rows - 1, dtype=torch.long)
            table[torch.tensor(config.vocabulary)] = torch.arange(rows - 1)
            self.register_buffer('row_of_token', table, persistent=False)
        else:
            self.row_of_token = None
        self.token_embedding = nn.Embedding(rows, config.width)
        self.positional_embedding = nn.Parameter(
            torch.randn(config.context_length, config.width) * 0.01
        )
        self.transformer = Transformer(config.width, config.layers, config.heads)
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(
            torch.randn(config.width, config.embed_dim) * config.width**-0.5
        )
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed prompts.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, L)
            Padded with 0 after the end-of-text token, which has the largest id.

        Returns
        -------
        Tensor, shape (B, embed_dim)
        """
        hidden = self.hidden(ids)
        end = ids.argmax(dim=-1)
        return hidden[torch.arange(len(ids), device=ids.device), end] @ self.text_projection

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the states of all tokens after the last norm, shape (B, L, width)."""
        rows = ids if self.row_of_token is None else self.row_of_token[ids]
        x = self.token_embedding(rows) + self.positional_embedding[: ids.shape[1]]
        length = ids.shape[1]
        mask = torch.full((length, length), float('-inf'), device=x.device, dtype=x.dtype).triu(1)
        return self.ln_final(self.transformer(x, mask))


_SCALES = (
    # field of an Acquisition, transform to a number of order one
    ('repetition_time', lambda v: np.log10(v)),
    ('echo_time', lambda v: np.log10(v) + 2),
    ('inversion_time', lambda v: np.log10(v)),
    ('flip_angle', lambda v: v / 90),
    ('field_strength', lambda v: np.log2(v / 3)),
    ('age', lambda v: v / 50 - 1),
)
#: Length of the vector of :func:`numeric_features`.
NUMERIC_FEATURES = 5 * len(_SCALES) + 3 + len(CONTRASTS)


def numeric_features(acquisition: Acquisition) -> np.ndarray:
    """Return the numbers of an acquisition as a vector of order one.

    Each number gives a flag that says whether it is known, its scaled value, and a sine, a
    cosine and a square of it; voxel sizes give their logarithm; the contrast is one-hot.

    Returns
    -------
    ndarray of float32, shape (NUMERIC_FEATURES,)
    """
    parts: list[float] = []
    for name, scale in _SCALES:
        value = getattr(acquisition, name)
        if value is None or value <= 0:
            parts += [0.0] * 5
        else:
            x = float(scale(value))
            parts += [1.0, x, np.sin(np.pi * x), np.cos(np.pi * x), x * x]
    voxel = acquisition.voxel_size or (1.0, 1.0, 1.0)
    parts += [float(np.log(size)) for size in voxel]
    parts += [float(acquisition.contrast == name) for name in CONTRASTS]
    return np.asarray(parts, dtype=np.float32)


class NumericEncoder(nn.Module):
    """Vector of :func:`numeric_features` to an embedding to be added to that of the text."""

    def __init__(self, embed_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUMERIC_FEATURES, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim)
        )

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.layers(numbers)
