"""A model as it lies on disk: weights, configuration and provenance in one folder.

``model.safetensors`` holds the weights, ``config.json`` the configuration and what is known of
their origin. Neither can execute code when loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ..checksums import file_sha256
from ..errors import ModelError
from .config import SynthesisConfig
from .store import CONFIG, EMBEDDED, WEIGHTS, embedded_model
from .synthesis import PromptEncoder, SynthesisNet
from .weights import check_state

FORMAT = 1


class Model(nn.Module):
    """A synthesis network with the prompt encoder that belongs to it."""

    def __init__(self, config: SynthesisConfig):
        super().__init__()
        self.config = config
        self.prompt = PromptEncoder(config)
        self.synthesis = SynthesisNet(config)


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory and where it came from.

    Attributes
    ----------
    network : Model
        In evaluation mode, float32.
    name, version : str
    sha256 : str
        Of the weights file.
    card : dict
        Free provenance: training data, command, licence, ranges of the training prompts.
    recorded_sha256 : str or None
        What the weights file's SHA-256 was when it was written, where that was noted down.
    """

    network: Model
    name: str
    version: str
    sha256: str
    card: dict = field(default_factory=dict)
    recorded_sha256: str | None = None


def save_model(
    network: Model, folder: str | Path, *, version: str, card: dict, half: bool = False
) -> Path:
    """Write a model folder.

    Parameters
    ----------
    network : Model
    folder : path-like
        Made if it does not exist.
    version : str
    card : dict
        JSON-serialisable provenance.
    half : bool
        Store the weights as float16, which halves the file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    state = {
        key: value.detach().to(dtype).contiguous() for key, value in network.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    # safetensors makes it readable by its owner only, which a shared installation is not.
    (folder / WEIGHTS).chmod(0o644)
    description = {
        'format': FORMAT,
        'version': version,
        'sha256': file_sha256(folder / WEIGHTS),
        'config': network.config.to_dict(),
        'card': card,
    }
    (folder / CONFIG).write_text(json.dumps(description, indent=2) + '\n')
    return folder


def load_model(folder: str | Path) -> LoadedModel:
    """Load a model folder.

    Parameters
    ----------
    folder : path-like
        A folder written by :func:`save_model`, or ``'embedded'``.

    Raises
    ------
    ModelError
        If the folder is not one of ours, or weights and configuration do not fit together.
    """
    folder = embedded_model() if str(folder) == EMBEDDED else Path(folder)
    description = _read_description(folder)
    try:
        config = SynthesisConfig.from_dict(description['config'])
        network = Model(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f'the configuration cannot be used ({error})', path=folder / CONFIG, remedy=_REMEDY
        ) from error
    weights = folder / WEIGHTS
    _load_weights(network, weights)
    return LoadedModel(
        network=network.eval(),
        name=config.name,
        version=str(description.get('version', 'unknown')),
        sha256=file_sha256(weights),
        card=description.get('card', {}),
        recorded_sha256=description.get('sha256'),
    )


_REMEDY = 'Give --model embedded or a folder with model.safetensors and config.json'


def _read_description(folder: Path) -> dict:
    path = folder / CONFIG
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError('is not a model folder', path=folder, remedy=_REMEDY) from error
    except (OSError, ValueError) as error:
        raise ModelError(f'cannot be read ({error})', path=path, remedy=_REMEDY) from error
    if not isinstance(description, dict) or description.get('format') != FORMAT:
        raise ModelError(
            f'is not a model description of format {FORMAT}', path=path, remedy=_REMEDY
        )
    return description


def _load_weights(network: Model, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f'cannot be read ({error})', path=path, remedy=_REMEDY) from error
    check_state(path, network.state_dict(), state, remedy=_REMEDY)
    network.load_state_dict({key: value.float() for key, value in state.items()})
