"""The residual 3D image encoder."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .config import EncoderConfig


class ResBlock(nn.Module):
    """Two 3×3×3 convolutions on a scaled residual branch (EDSR, Lim et al. 2017)."""

    def __init__(self, width: int, norm: str, res_scale: float):
        super().__init__()
        if norm == 'batch':
            self.body = nn.Sequential(
                nn.Conv3d(width, width, 3, padding=1),
                nn.BatchNorm3d(width),
                nn.ReLU(inplace=True),
                nn.Conv3d(width, width, 3, padding=1),
                nn.BatchNorm3d(width),
            )
        elif norm == 'none':
            self.body = nn.Sequential(
                nn.Conv3d(width, width, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv3d(width, width, 3, padding=1),
            )
        else:
            raise ValueError(f"norm must be 'batch' or 'none', not {norm!r}")
        self.res_scale = res_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, self.body(x), alpha=self.res_scale)


class ContextBranch(nn.Module):
    """A strided side branch that brings wide context back to full resolution.

    Each level halves the resolution, runs residual blocks and hands its result, enlarged, to the
    level above; the sum at the top is added to the full-resolution features.
    """

    def __init__(self, width: int, config: EncoderConfig):
        super().__init__()
        self.down = nn.Conv3d(width, config.context_widths[0], 3, stride=2, padding=1)
        inner = config.context_widths[0]
        blocks = [
            ResBlock(inner, config.norm, config.res_scale) for _ in range(config.context_blocks)
        ]
        self.before = nn.Sequential(*blocks)
        deeper = config.context_widths[1:]
        self.deeper = (
            ContextBranch(
                inner,
                EncoderConfig(
                    norm=config.norm,
                    res_scale=config.res_scale,
                    context_widths=deeper,
                    context_blocks=config.context_blocks,
                ),
            )
            if deeper
            else None
        )
        self.after = ResBlock(inner, config.norm, config.res_scale)
        self.up = nn.Conv3d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.before(F.relu(self.down(x)))
        if self.deeper is not None:
            inner = self.deeper(inner)
        inner = self.up(self.after(inner))
        # Nearest enlargement to twice the size, cut to the (possibly odd) size above.
        enlarged = F.interpolate(inner, scale_factor=2, mode='nearest')
        return x + enlarged[..., : x.shape[2], : x.shape[3], : x.shape[4]]


class ResEncoder(nn.Module):
    """Image to feature volume of the same size.

    Layer names and order follow the published checkpoints: ``head``, ``body`` (residual blocks
    and a closing convolution, with a long skip from the head's output) and ``tail``.

    Parameters
    ----------
    config : EncoderConfig
    text_dim : int
        Size of a prompt embedding; used only with ``config.conditioned``.
    """

    def __init__(self, config: EncoderConfig, text_dim: int):
        super().__init__()
        width = config.n_feats
        self.head = nn.Sequential(nn.Conv3d(1, width, 3, padding=1))
        self.condition = nn.Linear(text_dim, 2 * width) if config.conditioned else None
        self.context = ContextBranch(width, config) if config.context_widths else None
        blocks = [
            ResBlock(width, config.norm, config.res_scale) for _ in range(config.n_resblocks)
        ]
        self.body = nn.Sequential(*blocks, nn.Conv3d(width, width, 3, padding=1))
        # A conditioned encoder hands the source through as its last channel: the decoder then
        # needs no more than a table to begin with.
        out_dim = config.out_dim - 1 if config.conditioned else config.out_dim
        self.tail = nn.Sequential(nn.Conv3d(width, out_dim, 3, padding=1))

    def forward(self, x: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """Encode.

        Parameters
        ----------
        x : Tensor, shape (B, 1, D, H, W)
        text : Tensor, shape (B, text_dim), optional
            Embedded prompt of the source; needed by a conditioned encoder.

        Returns
        -------
        Tensor, shape (B, out_dim, D, H, W)
        """
        head = self.head(x)
        if self.condition is not None:
            scale, shift = self.condition(text)[:, :, None, None, None].chunk(2, dim=1)
            head = F.relu(torch.addcmul(shift, head, 1 + scale))
        features = head if self.context is None else self.context(head)
        encoded = self.tail(self.body(features) + head)
        return encoded if self.condition is None else torch.cat([encoded, x.to(encoded.dtype)], 1)
