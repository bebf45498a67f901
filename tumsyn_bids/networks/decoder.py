"""The implicit decoder: features and continuous coordinates to intensities."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .config import FLUID, N_SIGNALS, DecoderConfig
from .correction import PlacedCorrection
from .tissues import TissueReader

#: How many times brighter or darker than its mixture of signals an image is believed to be.
_BRIGHTER = 1.5


def make_coord(shape, *, device=None) -> torch.Tensor:
    """Return the centres of the cells of a grid, in [-1, 1].

    Parameters
    ----------
    shape : sequence of 3 int

    Returns
    -------
    Tensor of float32, shape (D * H * W, 3)
        Row-major, axes in the order of ``shape``.
    """
    axes = [(torch.arange(n, device=device) * 2 + 1) / n - 1 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1).reshape(-1, 3)


class ImplicitDecoder(nn.Module):
    """Local implicit image function (Chen, Liu & Wang, CVPR 2021).

    Parameters
    ----------
    dim : int
        Channels of the feature volume.
    text_dim : int
        Size of the prompt embedding; used only with ``config.film``. With ``config.mixing`` its
        last entries are the signals of the tissues.
    config : DecoderConfig
    """

    def __init__(self, dim: int, text_dim: int, config: DecoderConfig):
        super().__init__()
        if config.local_ensemble and config.coordinates != 'relative':
            raise ValueError("local_ensemble needs coordinates='relative'")
        widths = (dim + (6 if config.cell else 3), *config.hidden, 1)
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])
        # One share more than tissues: what gives no signal.
        self.shares = nn.Linear(dim, N_SIGNALS + 1) if config.mixing else None
        self.tissues = TissueReader(dim) if config.tissues else None
        self.correction = (
            PlacedCorrection(dim, text_dim, config.correction) if config.correction else None
        )
        self.relative = config.coordinates == 'relative'
        self.cell = config.cell
        self.local_ensemble = config.local_ensemble
        self.film = (
            nn.ModuleList(nn.Linear(text_dim, 2 * width) for width in config.hidden)
            if config.film
            else None
        )
        for modulation in self.film or ():
            nn.init.normal_(modulation.weight, std=0.1 * text_dim**-0.5)
            nn.init.zeros_(modulation.bias)

    def forward(
        self,
        features,
        coord,
        text,
        cell=None,
        signals=None,
        place=None,
        kinds=None,
        echo=None,
        restore: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Decode at given points.

        Parameters
        ----------
        features : Tensor, shape (B, C, D, H, W)
        coord : Tensor, shape (B, K, 3)
            Position in the feature volume, [-1, 1] from border to border, axes as (D, H, W).
        text : Tensor, shape (B, text_dim)
        cell : Tensor, shape (3,) or (B, 3), optional
            Size of the voxels to answer for, in feature voxels, axes as (D, H, W); the same size
            if not given. Used only with ``config.cell``.
        signals : Tensor, shape (B, N_SIGNALS), optional
            What is mixed in the place of the signals that ``text`` ends with.
        place : Tensor, shape (B, K, 3), optional
            Of the points in the brain; used only with ``config.tells_place``.
        kinds : :class:`~tumsyn_bids.networks.correction.ScanKinds`, optional
            Used only with ``config.correction``, and nothing is corrected without.
        echo : Tensor, shape (B, N_SIGNALS), optional
            What of ``signals`` another echo time has changed; used only with ``config.tissues``.
            The image changes by as large a part as its mixture of signals does, as what decays
            does, where all other changes are added to it. Fluid, of which an image may have much
            where the equations have next to none, is the exception.
        restore : callable, optional
            Done to the image, of shape (B, K), before ``signals`` and ``echo`` change it.

        Returns
        -------
        Tensor, shape (B, K)
        """
        if self.local_ensemble:
            told = (text, signals, place, kinds, echo, restore)
            return self._ensemble(features, coord, cell, *told)
        # Coordinates need more digits than bfloat16 has.
        sampled = F.grid_sample(
            features.float(),
            coord.flip(-1)[:, :, None, None].float(),
            mode='bilinear',
            padding_mode='border' if self.relative else 'zeros',
            align_corners=False,
        )
        points = sampled[:, :, :, 0, 0].transpose(1, 2).to(features.dtype)
        position = self._position(coord, features.shape[2:])
        told = (text, signals, place, kinds, echo, restore)
        return self._mlp(points, self._with_cell(position, cell), *told)

    def on_grid(
        self, features, text, cell=None, signals=None, place=None, kinds=None
    ) -> torch.Tensor:
        """Decode at the centres of the feature voxels, where interpolation is the identity.

        Parameters
        ----------
        features, text, cell, signals
            As :meth:`forward` takes them.
        place : Tensor, shape (B, 3, D, H, W), optional
            Of the voxels in the brain.
        kinds : :class:`~tumsyn_bids.networks.correction.ScanKinds`, optional
            As :meth:`forward` takes it.

        Returns
        -------
        Tensor, shape (B, D, H, W)
        """
        batch, dim, *shape = features.shape
        points = features.permute(0, 2, 3, 4, 1).reshape(batch, -1, dim)
        if self.relative:
            position = torch.zeros(1, 1, 3, device=features.device)
        else:
            position = make_coord(shape, device=features.device)[None]
        position = self._with_cell(position.expand(batch, points.shape[1], 3), cell)
        place = None if place is None else place.flatten(2).transpose(1, 2)
        return self._mlp(points, position, text, signals, place, kinds).reshape(batch, *shape)

    def tissue_logits(self, points, place=None) -> torch.Tensor:
        """Return the logits of the tissues' shares; only with ``config.mixing``.

        Parameters
        ----------
        points : Tensor, shape (B, K, C)
            Features.
        place : Tensor, shape (B, K, 3), optional
            As :meth:`forward` takes it.

        Returns
        -------
        Tensor, shape (B, K, N_SIGNALS + 1)
        """
        return self.shares(points) if self.tissues is None else self.tissues(points, place)

    def uncorrected(self, points, text) -> torch.Tensor:
        """Return what the correction is added to, at centres of feature voxels.

        Parameters
        ----------
        points : Tensor, shape (B, K, C)
            Features.
        text : Tensor, shape (B, text_dim)

        Returns
        -------
        Tensor, shape (B, K)
        """
        position = self._with_cell(points.new_zeros(*points.shape[:2], 3), None)
        return self._uncorrected(points, position, text, text[:, -N_SIGNALS:])

    def _ensemble(self, features, coord, cell, *told):
        batch, dim, *shape = features.shape
        size = torch.tensor(shape, device=coord.device)
        # Beyond the outermost centres the outermost voxels answer alone.
        index = torch.minimum(((coord.float() + 1) * size - 1) / 2, size - 1.0).clamp_min(0)
        flat = features.reshape(batch, dim, -1)
        total = index.new_zeros(index.shape[:2])
        for corner in itertools.product((0, 1), repeat=3):
            offset = torch.tensor(corner, device=coord.device)
            voxel = index.floor() + offset
            weight = (1 - (index - voxel).abs()).prod(dim=-1)
            inside = torch.minimum(voxel.long(), size - 1)
            row = (inside[..., 0] * shape[1] + inside[..., 1]) * shape[2] + inside[..., 2]
            points = flat.gather(2, row[:, None].expand(-1, dim, -1)).transpose(1, 2)
            position = self._with_cell(index - voxel, cell)
            total = total + weight * self._mlp(points, position, *told)
        return total

    def _with_cell(self, position, cell):
        if not self.cell:
            return position
        size = position.new_ones(3) if cell is None else cell.to(position)
        size = size.expand(len(position), 3)[:, None].expand_as(position)
        return torch.cat([position, size], dim=-1)

    def _position(self, coord, shape):
        if not self.relative:
            return coord
        size = torch.tensor(shape, device=coord.device, dtype=coord.dtype)
        index = ((coord + 1) * size - 1) / 2
        return index - index.round()

    def _mlp(
        self,
        points,
        position,
        text,
        signals=None,
        place=None,
        kinds=None,
        echo=None,
        restore=None,
    ):
        usual = text[:, -N_SIGNALS:]
        signals = usual if signals is None else signals
        mixed = signals if self.tissues is None else usual
        answer = self._uncorrected(points, position, text, mixed)
        if self.correction is not None and kinds is not None:
            answer = answer + self.correction(points, place, kinds)
        if restore is not None:
            answer = restore(answer)
        if mixed is signals:
            return answer
        shares = _shares(self.tissues(points, place))
        if echo is None:
            return answer + _mixture(shares, signals - usual)
        added = _mixture(shares, signals - usual - echo)
        brighter = answer / _mixture(shares, usual).clamp_min(1e-3)
        brighter = brighter.clamp(1 / _BRIGHTER, _BRIGHTER)
        factor = 1 + (brighter - 1) * (1 - shares[..., FLUID])
        return answer + added + factor * _mixture(shares, echo)

    def _uncorrected(self, points, position, text, signals):
        x = torch.cat([points, position.to(points.dtype)], dim=-1)
        linears = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        for index, layer in enumerate(linears[:-1]):
            x = F.relu(self._modulated(index, layer, x, text), inplace=True)
        # The last layer in full precision: bfloat16 would leave visible steps of intensity.
        last = linears[-1]
        with torch.autocast(x.device.type, enabled=False):
            answer = F.linear(x.float(), last.weight.float(), last.bias.float())[..., 0]
        if self.shares is None:
            return answer
        return answer + _mixture(_shares(self.shares(points)), signals)

    def _modulated(self, index, layer, x, text):
        if self.film is None:
            return layer(x)
        # Scaling and shifting the output is folded into the weights: one pass over the points.
        scale, shift = self.film[index](text).chunk(2, dim=-1)
        scale = 1 + scale
        weight = layer.weight[None] * scale[:, :, None]
        bias = layer.bias * scale + shift
        return torch.baddbmm(bias[:, None].to(x.dtype), x, weight.transpose(1, 2).to(x.dtype))


def _shares(logits: torch.Tensor) -> torch.Tensor:
    """Return the shares of the tissues that give a signal, shape (B, K, N_SIGNALS)."""
    return logits.float().softmax(dim=-1)[..., :N_SIGNALS]


def _mixture(shares: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    """Mix signals, shape (B, N_SIGNALS), with shares, (B, K, N_SIGNALS): (B, K)."""
    return torch.einsum('bkn,bn->bk', shares, signals.float())
