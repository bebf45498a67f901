"""Where the prompt meets the image: a channel gate from cross-attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .config import FusionConfig

#: Gates, and as many values, that a forward pass without gradients holds at a time.
_HIDDEN_AT_ONCE = 256


class TextAdapter(nn.Module):
    """Fit the frozen text embedding to the image features."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(in_dim, out_dim), nn.ReLU(inplace=True), nn.Linear(out_dim, out_dim)
        )

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.layers(text)


class CrossAttention(nn.Module):
    """One text query over the tokens of the image.

    Parameters
    ----------
    dim : int
    config : FusionConfig
        ``attention='released'`` keeps two properties of the published code: queries and keys are
        compared by their cosine without a temperature, and the key/value map is cut into tokens
        in memory order, without bringing the channels to the end first.
    """

    def __init__(self, dim: int, config: FusionConfig):
        super().__init__()
        if config.attention not in ('released', 'multihead'):
            raise ValueError(
                f"attention must be 'released' or 'multihead', not {config.attention!r}"
            )
        self.heads = config.heads
        self.released = config.attention == 'released'
        self.pool = config.pool
        self.q = nn.Conv3d(dim, dim, 1)
        self.kv = nn.Conv3d(dim, 2 * dim, 1)
        self.proj = nn.Conv3d(dim, dim, 1)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return the gate.

        Parameters
        ----------
        image : Tensor, shape (B, C, D, H, W)
        text : Tensor, shape (B, C)

        Returns
        -------
        Tensor, shape (B, C)
        """
        if self.pool > 1:
            image = F.avg_pool3d(image, self.pool, ceil_mode=True, count_include_pad=False)
        batch, dim = text.shape
        head_dim = dim // self.heads
        query = self.q(text[:, :, None, None, None]).reshape(batch, 1, self.heads, head_dim)
        key, value = self._keys_values(image, batch, head_dim)
        query, key = query.transpose(1, 2).float(), key.float()
        scale = head_dim**-0.5
        if self.released:
            query, key, scale = F.normalize(query, dim=-1), F.normalize(key, dim=-1), 1.0
        weights = (query @ key.transpose(-2, -1) * scale).softmax(dim=-1)
        attended = (weights @ value.float()).transpose(1, 2).reshape(batch, dim, 1, 1, 1)
        return self.proj(attended.to(image.dtype)).reshape(batch, dim)

    def _keys_values(self, image, batch, head_dim):
        kv = self.kv(image)
        n_tokens = kv[0, 0].numel()
        if self.released:
            tokens = kv.contiguous().reshape(batch, n_tokens, 2, self.heads, head_dim)
            return tokens.permute(2, 0, 3, 1, 4)
        tokens = kv.reshape(batch, 2, self.heads, head_dim, n_tokens)
        return tokens.permute(1, 0, 2, 4, 3)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a volume."""

    def __init__(self, dim: int):
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.movedim(1, -1)).movedim(-1, 1)


class GatedFeedForward(nn.Module):
    """Depth-wise gated block (Restormer's GDFN, Zamir et al. 2022), expansion 4."""

    def __init__(self, dim: int):
        super().__init__()
        hidden = 4 * dim
        self.project_in = nn.Conv3d(dim, hidden, 1, bias=False)
        self.dwconv = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.project_out = nn.Conv3d(hidden // 2, dim, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
            return self.project_out(F.gelu(gate) * value)
        # The hidden channels do not see each other: taken in groups, they never fill memory.
        half = self.project_out.in_channels
        first, *others = torch.arange(half, device=x.device).split(_HIDDEN_AT_ONCE)
        total = self._share(x, first, half + first)
        for group in others:
            total += self._share(x, group, half + group)
        return total

    def _share(self, x, gates, values):
        """Return what some hidden channels contribute to the output."""
        hidden = torch.cat([gates, values])
        x = F.conv3d(x, self.project_in.weight[hidden])
        x = F.conv3d(x, self.dwconv.weight[hidden], padding=1, groups=len(hidden))
        gate, value = x.chunk(2, dim=1)
        return F.conv3d(F.gelu(gate) * value, self.project_out.weight[:, gates])


class FusionBlock(nn.Module):
    """Gate the image's channels with what the text finds in it.

    With ``config.mlp`` the gate multiplies the features and two norms and a gated block follow,
    as published; without it the gate is a scale around one.
    """

    def __init__(self, dim: int, text_dim: int, config: FusionConfig):
        super().__init__()
        self.text_lora = TextAdapter(text_dim, dim)
        self.c_attn = CrossAttention(dim, config)
        self.mlp = GatedFeedForward(dim) if config.mlp else None
        self.norm2 = ChannelNorm(dim) if config.mlp else None
        self.norm3 = ChannelNorm(dim) if config.mlp else None

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        if self.mlp is None:
            return image * self.scale(image, text)[:, :, None, None, None]
        gate = self.c_attn(image, self.text_lora(text))[:, :, None, None, None]
        x = self.norm2(image * gate)
        return self.norm3(x + self.mlp(x))

    def scale(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return what channels are multiplied by, shape (B, C), where that is all: no ``mlp``."""
        return 1 + self.c_attn(image, self.text_lora(text))


class Fusion(nn.Module):
    """Container that gives the published key names (``fusion.block.0``)."""

    def __init__(self, dim: int, text_dim: int, config: FusionConfig):
        super().__init__()
        self.block = nn.ModuleList([FusionBlock(dim, text_dim, config)])

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        for block in self.block:
            image = block(image, text)
        return image
