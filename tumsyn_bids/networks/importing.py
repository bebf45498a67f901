"""From published checkpoints, or another model, to a model of the store."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from ..checksums import file_sha256
from ..errors import ModelError, UsageError
from .checkpoints import published_model
from .embeddings import read_embeddings
from .model import Model, load_model, save_model
from .store import new_model_folder

LICENCE_NOTE = (
    'not stated by the importer; the terms are those of the page that the checkpoints came from, '
    'not those of this package'
)


def import_published(
    name: str,
    synthesis: str | Path,
    text_encoder: str | Path,
    store: Path,
    *,
    licence: str | None = None,
    text_heads: int | None = None,
) -> Path:
    """Convert two published checkpoints into a model folder of the store.

    Parameters
    ----------
    name : str
        Of the new model.
    synthesis, text_encoder : path-like
        The checkpoints; see :func:`~tumsyn_bids.networks.checkpoints.published_model`.
    store : Path
        Made if it does not exist.
    licence : str, optional
        Of the weights, noted down with them.
    text_heads : int, optional
        See :func:`~tumsyn_bids.networks.checkpoints.published_model`.

    Returns
    -------
    Path
        The folder of the model: there complete or not at all.

    Raises
    ------
    ModelError
        If the name is taken, a checkpoint cannot be used or the store cannot be written to.
    """
    new_model_folder(name, store)
    network = published_model(synthesis, text_encoder, name=name, text_heads=text_heads)
    card = {
        'training': 'published weights of TUMSyn, converted without any change of a number',
        'licence': licence or LICENCE_NOTE,
        'imported': dt.datetime.now(dt.timezone.utc).date().isoformat(),
        'originals': {
            part: {'file': Path(path).name, 'sha256': file_sha256(path)}
            for part, path in (('synthesis', synthesis), ('text encoder', text_encoder))
        },
    }
    return _store(network, store, name, version='imported', card=card)


def add_embeddings(name: str, model: str | Path, embeddings: str | Path, store: Path) -> Path:
    """Copy a model that was trained with a table of embeddings, and give it further ones.

    Parameters
    ----------
    name : str
        Of the new model.
    model : path-like
        Folder of the model.
    embeddings : path-like
        See :func:`~tumsyn_bids.networks.embeddings.read_embeddings`; where the model has an
        embedding of a prompt already, the model's is kept.
    store : Path
        Made if it does not exist.

    Returns
    -------
    Path
        The folder of the new model.

    Raises
    ------
    ModelError
        If the model reads its prompts itself, the name is taken or the store cannot be written to.
    UsageError
        If the file is no table of embeddings, or they are of another length.
    """
    new_model_folder(name, store)
    loaded = load_model(model)
    config = loaded.network.config
    if config.text.reader != 'table':
        raise ModelError(
            'was not trained with a table of embeddings',
            path=model,
            remedy='It takes any prompt as it is',
        )
    prompts, vectors = read_embeddings(embeddings)
    if vectors.shape[1] != config.text.embed_dim:
        raise UsageError(
            f'has vectors of {vectors.shape[1]} numbers, the model takes {config.text.embed_dim}',
            path=embeddings,
            remedy='Use the text encoder that the model was trained with',
        )
    new = [place for place, prompt in enumerate(prompts) if prompt not in config.text.prompts]
    text = replace(config.text, prompts=(*config.text.prompts, *(prompts[place] for place in new)))
    network = Model(replace(config, text=text))
    state = loaded.network.state_dict()
    key = 'prompt.text.embeddings'
    state[key] = torch.cat([state[key], torch.from_numpy(vectors[new])])
    network.load_state_dict(state)
    return _store(network, store, name, version=loaded.version, card=loaded.card)


def _store(network: Model, store: Path, name: str, **about) -> Path:
    folder = store / name
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix='.import-') as scratch:
            made = save_model(network, Path(scratch) / name, **about)
            shutil.move(made, folder)
    except OSError as error:
        raise ModelError(
            f'cannot be written ({error.strerror})',
            path=store,
            remedy='Check permissions and free space, or give another --models-dir',
        ) from error
    return folder


def verify_model(folder: str | Path) -> str:
    """Load a model, look at every weight, and compare its checksum with the recorded one.

    Returns
    -------
    str
        What was found to be right.

    Raises
    ------
    ModelError
        If anything is wrong.
    """
    model = load_model(folder)
    if model.recorded_sha256 is None:
        return 'complete, finite; no checksum was recorded when it was written'
    if model.recorded_sha256 != model.sha256:
        raise ModelError(
            f'its weights have changed: SHA-256 {model.sha256}, recorded {model.recorded_sha256}',
            path=folder,
            remedy='Remove the folder and import the model again',
        )
    return 'complete, finite, checksum as recorded'
