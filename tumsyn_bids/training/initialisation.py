"""First weights of a network without normalisation layers."""

from __future__ import annotations

import torch
from torch import nn

from ..networks.encoder import ResBlock
from ..networks.model import Model


@torch.no_grad()
def initialise(model: Model) -> Model:
    """Draw weights that keep the size of the signal from layer to layer (He et al. 2015).

    Residual branches, the prompt's modulations and the output begin close to nothing, so that the
    network begins as a smooth, bounded function of the source.

    Parameters
    ----------
    model : Model
        Changed in place.

    Returns
    -------
    Model
        The same.
    """
    network = model.synthesis
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResBlock):
            last = [layer for layer in module.body if isinstance(layer, nn.Conv3d)][-1]
            last.weight.mul_(0.3)
    for block in network.fusion.block:
        block.c_attn.proj.weight.mul_(0.03)
    for layer in (*(network.imnet.film or ()), network.encoder.condition):
        if layer is not None:
            layer.weight.mul_(0.2)
    if network.imnet.correction is not None:
        nn.init.zeros_(network.imnet.correction.output.weight)
    output = network.imnet.layers[-1]
    output.weight.mul_(0.1)
    nn.init.constant_(output.bias, 0.4 if network.imnet.shares is None else 0.0)
    return model
