"""What libraries read from the environment when they are imported."""

from __future__ import annotations

import os
from pathlib import Path


def ensure_home() -> None:
    """Give a user whom the system does not know a home in name, for libraries that ask for it.

    A container that is run under any user id, without an environment, has none, and pybids stops
    when it asks for one while it is being imported. Nothing is written there.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ['HOME'] = '/nonexistent'


def prepare_environment(work_dir: Path) -> None:
    """Keep libraries from writing to the home directory and from calling home.

    To be called before Nipype, matplotlib or TemplateFlow are imported; processes that are
    started later inherit it.

    Parameters
    ----------
    work_dir : Path
        Made if it is not there. What the user has set already is left alone.
    """
    caches = work_dir / 'caches'
    folders = {
        'MPLCONFIGDIR': caches / 'matplotlib',
        'NIPYPE_CONFIG_DIR': caches / 'nipype',
        'TEMPLATEFLOW_HOME': _templateflow_home(caches / 'templateflow'),
    }
    for name, folder in folders.items():
        if name not in os.environ:
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[name] = str(folder)
    os.environ['TEMPLATEFLOW_AUTOUPDATE'] = 'off'
    os.environ['NIPYPE_NO_ET'] = os.environ['NO_ET'] = '1'
    os.environ.setdefault('MPLBACKEND', 'Agg')


def _templateflow_home(otherwise: Path) -> Path:
    """Return where other programs have put templates for this user, if they have."""
    usual = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'templateflow'
    try:
        return usual if any(usual.glob('tpl-*')) else otherwise
    except OSError:
        return otherwise
