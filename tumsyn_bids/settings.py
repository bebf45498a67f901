"""What a run was asked to do: one frozen record, saved beside the logs, passed explicitly."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

MISSING_METADATA_POLICIES = ('error', 'warn', 'none')
COREGISTRATIONS = ('rigid', 'affine', 'syn')
BRIGHTNESSES = ('dataset', 'none')
SKULL_STRIP_METHODS = ('ants', 'hd-bet', 'none')
MORPHOMETRY_LEVELS = ('none', 'volumes', 'full')
CLEAN_WORKDIR_POLICIES = ('never', 'on-success')


@dataclass(frozen=True)
class Settings:
    """Everything that decides the outcome of a run.

    Attributes
    ----------
    bids_dir, output_dir, work_dir : Path
        Absolute.
    participant_label, session_label : tuple of str
        Without ``sub-`` and ``ses-``; empty means all.
    bids_filter_file : Path or None
        JSON ``{contrast: {entity: value}}``.
    bids_database_dir : Path or None
        Where the index of the dataset is kept between runs.
    contrasts : tuple of str
        ``('missing',)``, ``('all',)`` or keys of :data:`tumsyn_bids.acquisition.CONTRASTS`; empty
        where only ``targets_file`` and ``like`` say what to make.
    targets_file : Path or None
    like : tuple of Path
        Sidecars whose protocol is to be imitated.
    validate : bool
        Synthesise acquired contrasts as well, and score them.
    match_brightness : {'dataset', 'none'}
        Make images as bright as other people's scans of their contrast.
    missing_metadata : {'error', 'warn', 'none'}
    model : str
        ``'embedded'`` or a path.
    device : str
        ``'auto'``, ``'cpu'``, ``'cuda'`` or ``'cuda:N'``.
    skull_strip : {'ants', 'hd-bet', 'none'}
    coreg : {'rigid', 'affine', 'syn'}
        How the scans of a session are aligned with its reference.
    tissues : bool
        Segment grey matter, white matter and CSF of each session's T1w.
    output_spaces : tuple of str
        Standard spaces in which images are written as well, as in ``MNI152NLin2009cAsym:res-2``.
    morphometry : {'none', 'volumes', 'full'}
        What is measured of each session's T1w.
    fs_subjects_dir : Path or None
        Where files in the formats of FreeSurfer go; nowhere if not given.
    fs_recon : bool
        Run FreeSurfer, which must be installed, and take its measures.
    nprocs : int
        Processors that may be used at once, over all sessions.
    omp_nthreads : int
        Threads of one step.
    mem_gb : float
        Memory that may be used at once, over all sessions.
    random_seed : int
    use_plugin : Path or None
        YAML with ``plugin`` and ``plugin_args`` of Nipype.
    stop_on_first_crash : bool
    clean_workdir : {'never', 'on-success'}
    write_graph : bool
    verbose : int
    run_id : str
        Names the folder of this run under ``logs/``.
    """

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    participant_label: tuple[str, ...] = ()
    session_label: tuple[str, ...] = ()
    bids_filter_file: Path | None = None
    bids_database_dir: Path | None = None
    contrasts: tuple[str, ...] = ('missing',)
    targets_file: Path | None = None
    like: tuple[Path, ...] = ()
    validate: bool = False
    match_brightness: str = 'dataset'
    missing_metadata: str = 'warn'
    model: str = 'embedded'
    device: str = 'auto'
    skull_strip: str = 'ants'
    coreg: str = 'rigid'
    tissues: bool = False
    output_spaces: tuple[str, ...] = ()
    morphometry: str = 'none'
    fs_subjects_dir: Path | None = None
    fs_recon: bool = False
    nprocs: int = 1
    omp_nthreads: int = 1
    mem_gb: float = 8.0
    random_seed: int = 2025
    use_plugin: Path | None = None
    stop_on_first_crash: bool = False
    clean_workdir: str = 'never'
    write_graph: bool = False
    verbose: int = 0
    run_id: str = ''

    def replace(self, **changes) -> Settings:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    @property
    def log_dir(self) -> Path:
        """Folder of this run's logs."""
        return self.output_dir / 'logs' / self.run_id

    def to_toml(self) -> str:
        """Serialise; :meth:`from_toml` gives back equal settings."""
        import tomli_w

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return tomli_w.dumps(
            {name: _plain(value) for name, value in values.items() if value is not None}
        )

    @classmethod
    def from_toml(cls, text: str) -> Settings:
        """Rebuild settings from :meth:`to_toml`."""
        values = _toml().loads(text)
        return cls(**{name: _typed(name, value) for name, value in values.items()})


_PATHS = ('bids_dir', 'output_dir', 'work_dir', 'bids_filter_file', 'bids_database_dir')
_PATHS += ('targets_file', 'use_plugin', 'fs_subjects_dir')


def _toml():
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib
    return tomllib


def _plain(value):
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _typed(name: str, value):
    if name in _PATHS:
        return Path(value)
    if name == 'like':
        return tuple(Path(item) for item in value)
    return tuple(value) if isinstance(value, list) else value
