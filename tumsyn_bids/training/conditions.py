"""What the synthesis network is told a target by: the text encoder of stage 1, or a stand-in.

The stand-ins are the paper's ablations. With one of them nothing but the stand-in tells what is
wanted: numbers and tissue signals of the prompt are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..acquisition import CONTRASTS, Acquisition
from ..errors import UsageError
from ..networks.config import ONE_HOT, SynthesisConfig, TextConfig
from ..networks.embeddings import clean_prompt, read_embeddings
from ..prompt import render_prompt
from ..simulation.draw import scanners
from ..synthesis.conditioning import scanner_label
from .people import PairedSubject
from .text_image import load_text_image


@dataclass(frozen=True)
class Condition:
    """A text encoder that is not trained further.

    Attributes
    ----------
    config : SynthesisConfig
        Of the network that is conditioned by it.
    weights : dict of str to Tensor
        Of the reader of prompts; empty for labels.
    """

    config: SynthesisConfig
    weights: dict[str, torch.Tensor]


def make_condition(
    config: SynthesisConfig, text_encoder: str | Path, people: Iterable[PairedSubject]
) -> Condition:
    """Put a given text encoder into a configuration.

    Parameters
    ----------
    config : SynthesisConfig
    text_encoder : str or path-like
        ``'one-hot'``, a model folder of stage 1, or a file of embeddings
        (:func:`~tumsyn_bids.networks.embeddings.read_embeddings`).
    people : iterable of PairedSubject
        All that the run will see, held out ones too.

    Raises
    ------
    ModelError
        If the folder does not hold a model of stage 1.
    UsageError
        If the file is no table of embeddings, or prompts of the people are missing from it.
    """
    if str(text_encoder) == ONE_HOT:
        return _labels(config, people)
    if Path(text_encoder).is_file():
        return _table(config, Path(text_encoder), people)
    model, _ = load_text_image(text_encoder)
    values = config.to_dict()
    values['text'] = model.config.to_dict()['text']
    return Condition(SynthesisConfig.from_dict(values), model.text.state_dict())


def prompts_of(people: Iterable[PairedSubject]) -> list[str]:
    """Return the prompts of all images of some people, each once."""
    prompts = (
        clean_prompt(render_prompt(person.acquisition(name)))
        for person in people
        for name in sorted(person.images)
    )
    return list(dict.fromkeys(prompts))


def _labels(config: SynthesisConfig, people) -> Condition:
    found = (scanner_label(a) for person in people for a in person.protocols.values())
    drawn = (scanner_label(Acquisition(field_strength=f, manufacturer=m)) for f, m in scanners())
    labels = tuple(sorted({*found, *drawn} - {None}))
    text = TextConfig(reader='labels', scanners=labels, embed_dim=len(CONTRASTS) + len(labels))
    return Condition(_told_by(config, text), {})


def _table(config: SynthesisConfig, path: Path, people) -> Condition:
    prompts, embeddings = read_embeddings(path)
    missing = [prompt for prompt in prompts_of(people) if prompt not in set(prompts)]
    if missing:
        raise UsageError(
            f'has no embedding of {len(missing)} prompts of the training, such as "{missing[0]}"',
            path=path,
            field='--text-encoder',
            remedy='Embed all that tumsyn train prompts lists',
        )
    text = TextConfig(reader='table', prompts=prompts, embed_dim=embeddings.shape[1])
    told = _told_by(config, text)
    # A source has a prompt of its own only where its voxels are those of the scan.
    encoder = replace(told.encoder, conditioned=False)
    return Condition(replace(told, encoder=encoder), {'embeddings': torch.from_numpy(embeddings)})


def _told_by(config: SynthesisConfig, text: TextConfig) -> SynthesisConfig:
    decoder = replace(config.decoder, mixing=False, tissues=False, correction=())
    return replace(config, text=text, decoder=decoder, numeric=False, signals=False)
