"""The model store: one folder per model, found by name. Nothing here needs torch."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from ..errors import ModelError

WEIGHTS = 'model.safetensors'
CONFIG = 'config.json'
EMBEDDED = 'embedded'
_NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9._-]*')


def models_dir(given: str | Path | None = None) -> Path:
    """Return the folder of the store, whether it exists or not.

    ``given``, else ``$TUMSYN_HOME/models``, else ``tumsyn/models`` in the user's data folder
    (``$XDG_DATA_HOME``, by default ``~/.local/share``).
    """
    if given is not None:
        return Path(given).expanduser().absolute()
    home = os.environ.get('TUMSYN_HOME')
    if home:
        return Path(home).expanduser().absolute() / 'models'
    # A relative XDG_DATA_HOME is to be ignored (XDG Base Directory Specification).
    data = Path(os.environ.get('XDG_DATA_HOME', ''))
    if not data.is_absolute():
        data = Path('~/.local/share').expanduser()
    return data / 'tumsyn' / 'models'


def embedded_model() -> Path:
    """Return the folder of the model that comes with the package."""
    return Path(str(resources.files('tumsyn_bids') / 'data' / 'models' / EMBEDDED))


def stored_models(store: Path) -> list[str]:
    """Return the names of the models in a store, sorted."""
    if not store.is_dir():
        return []
    return sorted(path.parent.name for path in store.glob(f'*/{CONFIG}') if is_name(path.parent))


def is_name(text: str | Path) -> bool:
    """Return whether the last part of a path can name a model."""
    return bool(_NAME.fullmatch(Path(text).name))


def find_model(model: str | Path, store: str | Path | None = None) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    model : str or path-like
        ``'embedded'``, the path of a model folder, or a name in the store; in this order.
    store : path-like, optional
        As ``given`` of :func:`models_dir`.

    Raises
    ------
    ModelError
        If there is none; the message lists those that there are.
    """
    text = str(model)
    if text == EMBEDDED:
        return embedded_model()
    path = Path(text).expanduser().absolute()
    if (path / CONFIG).is_file():
        return path
    folder = models_dir(store)
    if text in stored_models(folder):
        return folder / text
    if os.sep in text or path.exists():
        raise ModelError(
            'is not a model folder',
            path=path,
            remedy=f'A model folder holds {WEIGHTS} and {CONFIG}. {_known(folder)}',
        )
    raise ModelError(f'there is no model {text!r}', field='--model', remedy=_known(folder))


def new_model_folder(name: str, store: Path) -> Path:
    """Return the folder of a model to be added.

    Raises
    ------
    ModelError
        If the name is taken or cannot be one.
    """
    if name == EMBEDDED or not _NAME.fullmatch(name):
        raise ModelError(
            f'{name!r} cannot be the name of a model',
            remedy=f'Use letters, digits, ".", "_" and "-", and not "{EMBEDDED}"',
        )
    folder = store / name
    if folder.exists():
        raise ModelError('exists already', path=folder, remedy='Choose another name or remove it')
    return folder


def _known(folder: Path) -> str:
    names = ', '.join([EMBEDDED, *stored_models(folder)])
    return f'Known by name, with those in {folder}: {names}'
