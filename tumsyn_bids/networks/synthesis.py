"""The synthesis network: encoder, fusion with the prompt, implicit decoder."""

from __future__ import annotations

import torch
from torch import nn

from .config import N_SIGNALS, SynthesisConfig
from .decoder import ImplicitDecoder
from .encoder import ResEncoder
from .fusion import Fusion
from .readers import prompt_reader
from .text import NUMERIC_FEATURES, NumericEncoder


class SynthesisNet(nn.Module):
    """The network of the paper, configurable in width, depth and options.

    The image encoder does not see the prompt, so one encoding serves any number of targets.

    Parameters
    ----------
    config : SynthesisConfig
    """

    def __init__(self, config: SynthesisConfig):
        super().__init__()
        self.config = config
        dim, text_dim = config.encoder.out_dim, config.prompt_dim
        self.encoder = ResEncoder(config.encoder, text_dim)
        self.fusion = Fusion(dim, text_dim, config.fusion)
        self.imnet = ImplicitDecoder(dim, text_dim, config.decoder)

    def forward(self, source, coord, text, source_text=None, cell=None) -> torch.Tensor:
        """Synthesise at given points.

        Parameters
        ----------
        source : Tensor, shape (B, 1, D, H, W)
        coord : Tensor, shape (B, K, 3)
            See :meth:`ImplicitDecoder.forward`.
        text : Tensor, shape (B, config.prompt_dim)
            Embedded prompt of the target.
        source_text : Tensor, shape (B, config.prompt_dim), optional
            Embedded prompt of the source, for a conditioned encoder.
        cell : Tensor, shape (3,) or (B, 3), optional
            See :meth:`ImplicitDecoder.forward`.

        Returns
        -------
        Tensor, shape (B, K)
        """
        fused = self.fusion(self.encoder(source, source_text), text)
        return self.imnet(fused, coord, text, cell)


class PromptEncoder(nn.Module):
    """Prompt to embedding: the text transformer and, if configured, the prompt's numbers.

    Parameters
    ----------
    config : SynthesisConfig
    """

    def __init__(self, config: SynthesisConfig):
        super().__init__()
        self.text = prompt_reader(config.text)
        self.signals = config.signals
        self.numeric = NumericEncoder(config.text.embed_dim) if config.numeric else None
        # Trained together with the synthesis network, an unbounded embedding lets it diverge.
        self.norm = nn.LayerNorm(config.text.embed_dim) if config.numeric else None

    def forward(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Embed prompts.

        Parameters
        ----------
        ids : Tensor of int64, shape (B, L)
            Tokens, or what else the configured reader takes.
        numbers : Tensor, shape (B, NUMERIC_FEATURES + N_SIGNALS)
            Of :func:`tumsyn_bids.synthesis.conditioning.prompt_tensors`.

        Returns
        -------
        Tensor, shape (B, config.prompt_dim)
        """
        embedded = self.text(ids)
        features, signals = numbers.split([NUMERIC_FEATURES, N_SIGNALS], dim=1)
        if self.numeric is not None:
            embedded = self.norm(embedded + self.numeric(features))
        if not self.signals:
            return embedded
        return torch.cat([embedded, signals.to(embedded)], dim=1)
