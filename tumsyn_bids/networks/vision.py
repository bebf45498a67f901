"""Stage 1 of the paper: a 3D image encoder beside the text encoder, in one space."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from .config import TextImageConfig, VisionConfig
from .text import TextEncoder, Transformer


class ImageEncoder(nn.Module):
    """Vision transformer over the cubes of a volume (Dosovitskiy et al. 2021, in 3D).

    Parameters
    ----------
    config : VisionConfig
    embed_dim : int
        Of the space shared with the text.

    Raises
    ------
    ValueError
        If the image is not a whole number of patches.
    """

    def __init__(self, config: VisionConfig, embed_dim: int):
        super().__init__()
        if config.image % config.patch:
            raise ValueError(f'{config.image} voxels are no whole number of {config.patch}s')
        width = config.width
        n_patches = (config.image // config.patch) ** 3
        self.conv1 = nn.Conv3d(1, width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(n_patches + 1, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Embed volumes.

        Parameters
        ----------
        volume : Tensor, shape (B, 1, image, image, image)

        Returns
        -------
        Tensor, shape (B, embed_dim)
        """
        x = self.conv1(volume).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer(x, None)[:, 0]) @ self.proj


class TextImageModel(nn.Module):
    """The two encoders, compared by their cosine.

    Parameters
    ----------
    config : TextImageConfig
    """

    def __init__(self, config: TextImageConfig):
        super().__init__()
        self.config = config
        self.text = TextEncoder(config.text)
        self.vision = ImageEncoder(config.vision, config.text.embed_dim)

    def forward(self, volumes: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return cosine over temperature of each image with each prompt.

        Parameters
        ----------
        volumes : Tensor, shape (I, 1, D, D, D)
        ids : Tensor of int64, shape (T, L)

        Returns
        -------
        Tensor of float32, shape (I, T)
        """
        image = F.normalize(self.vision(volumes).float(), dim=-1)
        text = F.normalize(self.text(ids).float(), dim=-1)
        return image @ text.T / self.config.temperature


def contrastive_loss(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean of the image-to-text and the text-to-image cross-entropy (eq. 1-3).

    Parameters
    ----------
    logits : Tensor, shape (B, B)
        The pairs lie on the diagonal.
    """
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def halve_and_crop(volume: torch.Tensor, edge: int) -> torch.Tensor:
    """Halve a volume in each dimension and cut, or fill up, to a cube around what is not 0.

    Parameters
    ----------
    volume : Tensor, shape (X, Y, Z)
    edge : int

    Returns
    -------
    Tensor, shape (1, edge, edge, edge)
    """
    half = F.avg_pool3d(volume[None, None], 2, ceil_mode=True, count_include_pad=False)[0, 0]
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        used = half.ne(0).any(dim=others[1]).any(dim=others[0]).nonzero()
        middle = (int(used[0]) + int(used[-1]) + 1) / 2 if len(used) else half.shape[axis] / 2
        first = math.ceil(middle - edge / 2)
        start, stop = max(first, 0), min(first + edge, half.shape[axis])
        half = half.narrow(axis, start, stop - start)
        padding = [0] * 6
        padding[2 * (2 - axis) : 2 * (2 - axis) + 2] = [start - first, first + edge - stop]
        half = F.pad(half, padding)
    return half[None]
