"""What a run of stage 2 begins with: a configuration, and weights if there are any."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..acquisition import CONTRASTS, Acquisition
from ..errors import UsageError
from ..networks.config import SynthesisConfig, TextConfig
from ..networks.model import Model, load_model
from ..networks.registry import get_config
from ..networks.store import find_model
from ..networks.tokenizer import get_tokenizer
from ..prompt import render_prompt
from ..simulation.draw import draw_acquisition, scanners
from .conditions import make_condition
from .initialisation import initialise
from .people import PairedSubject
from .ranges import Ranges
from .samples import forget_fields


def prompt_vocabulary(n_draws: int = 3000) -> tuple[int, ...]:
    """Return the token ids that prompts of this package are made of."""
    rng = np.random.default_rng(0)
    tokenizer = get_tokenizer()
    ids: set[int] = set(tokenizer.encode('0 1 2 3 4 5 6 7 8 9 . , ; : ( ) None Unknown'))
    for _, name in scanners():
        ids.update(tokenizer.encode(name))
    for _ in range(n_draws):
        contrast = str(rng.choice(list(CONTRASTS)))
        acquisition = forget_fields(rng, draw_acquisition(rng, contrast), 0.2).replace(
            age=float(rng.integers(0, 100)),
            sex=str(rng.choice(['M', 'F'])),
            voxel_size=tuple(float(v) for v in rng.uniform(0.4, 6, 3)),
        )
        ids.update(tokenizer.encode(render_prompt(acquisition)))
    ids.update(tokenizer.encode(render_prompt(Acquisition())))
    return tuple(sorted(ids))


def training_config(name: str) -> SynthesisConfig:
    """Return a configuration; a small one gets the vocabulary of our prompts."""
    config = get_config(name)
    if name == 'official':
        return config
    values = config.to_dict()
    values['text'] = asdict(TextConfig(**{**values['text'], 'vocabulary': prompt_vocabulary()}))
    return SynthesisConfig.from_dict(values)


@dataclass(frozen=True)
class Beginning:
    """What a run begins with.

    Attributes
    ----------
    config : SynthesisConfig
    text : dict of str to Tensor or None
        Weights of a text encoder that is not trained further.
    weights : dict of str to Tensor or None
        Of the whole network; drawn at random if not given.
    origin : dict or None
        The model that these weights are of, and how it was trained, for the manifest.
    ranges : dict of str to dict, or None
        What that model has been told of the images that it learned (:mod:`.ranges`); ``None`` if
        its card does not say.
    """

    config: SynthesisConfig
    text: dict | None = None
    weights: dict | None = None
    origin: dict | None = None
    ranges: Ranges | None = field(default_factory=dict)


def begin(
    config_name: str,
    people: list[PairedSubject],
    *,
    text_encoder: str | Path | None = None,
    start: str | Path | None = None,
    frozen: bool = False,
    part: str | None = None,
) -> Beginning:
    """Choose configuration and first weights.

    Parameters
    ----------
    config_name : str
        See :func:`tumsyn_bids.networks.registry.get_config`; not looked at with ``start``.
    people : list of PairedSubject
        All that the run will see.
    text_encoder : str or path-like, optional
        See :func:`~tumsyn_bids.training.conditions.make_condition`.
    start : str or path-like, optional
        Model whose weights are the first ones.
    frozen : bool
        Whether the text encoder of ``start`` is not trained further.
    part : str, optional
        What ``start`` gets if it has no such part; see :func:`with_part`.

    Raises
    ------
    UsageError
        If both a model and a text encoder are given, or the latter does not fit the people.
    ModelError
        If the model or the text encoder cannot be loaded.
    """
    if start is None:
        config = training_config(config_name)
        if text_encoder is None:
            return Beginning(config)
        condition = make_condition(config, text_encoder, people)
        return Beginning(condition.config, condition.weights)
    if text_encoder is not None:
        raise UsageError(
            'the model to begin with has a text encoder of its own',
            path=text_encoder,
            field='--text-encoder',
            remedy='Give either --from or --text-encoder',
        )
    model = load_model(find_model(start))
    network = model.network
    if part is not None:
        network = with_part(network, part)
    text = network.prompt.text.state_dict() if frozen else None
    origin = {
        'version': model.version,
        'sha256': model.sha256,
        'training': model.card.get('training'),
    }
    ranges = model.card.get('ranges')
    return Beginning(network.config, text, network.state_dict(), origin, ranges)


def with_part(network: Model, part: str) -> Model:
    """Return a network whose decoder has one part more; its images of default protocols stay.

    Parameters
    ----------
    network : Model
        Returned as it is if it has that part already, or if it cannot have it.
    part : {'tissues', 'correction'}
        Field of :class:`~tumsyn_bids.networks.config.DecoderConfig`.
    """
    config = network.config
    if getattr(config.decoder, part) or not config.decoder.mixing:
        return network
    decoder = replace(config.decoder, **{part: getattr(get_config('embedded').decoder, part)})
    # Shares that are probabilities need nothing to make up for.
    gain = min(config.physics_gain, 1.0) if decoder.tissues else config.physics_gain
    config = replace(config, decoder=decoder, physics_gain=gain)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wider = initialise(Model(config))
    wider.load_state_dict({**wider.state_dict(), **network.state_dict()})
    return wider.eval()
