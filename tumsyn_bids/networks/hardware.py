"""What the processor or the GPU computes in."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16, which others emulate many times slower."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()
