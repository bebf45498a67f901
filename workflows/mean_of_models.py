"""Average the weights of two models of one training run (Wortsman et al., ICML 2022).

    python workflows/mean_of_models.py EARLY LATE OUT [PART_OF_EARLY]

The part is 0.5 if not given.
Configuration and provenance are those of LATE. What `tumsyn train tails` has measured belongs to
the weights and is left out: measure it again.
"""

from __future__ import annotations

import sys

import torch

from tumsyn_bids.networks.model import load_model, save_model
from tumsyn_bids.networks.store import find_model


def main(early: str, late: str, out: str, part: str = '0.5') -> int:
    """Write the mean; 1 if the two are not of one shape."""
    first, second = (load_model(find_model(name)) for name in (early, late))
    if first.network.config != second.network.config:
        sys.stderr.write(f'{early} and {late} have different configurations\n')
        return 1
    with torch.no_grad():
        for mean, other in zip(
            second.network.parameters(), first.network.parameters(), strict=True
        ):
            mean.lerp_(other, float(part))
    card = {key: value for key, value in second.card.items() if key != 'tails'}
    card['mean_of'] = [first.sha256, second.sha256]
    version = f'mean of {first.version} ({float(part):g}) and {second.version}'
    save_model(second.network, out, version=version, card=card, half=True)
    return 0


if __name__ == '__main__':
    if len(sys.argv) not in (4, 5):
        sys.stderr.write(__doc__)
        sys.exit(2)
    sys.exit(main(*sys.argv[1:]))
