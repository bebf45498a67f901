"""Settings survive the trip through TOML and cannot be changed in place."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from tumsyn_bids.settings import Settings

FULL = Settings(
    bids_dir=Path('/data/ds'),
    output_dir=Path('/data/out'),
    work_dir=Path('/scratch/w'),
    participant_label=('01', '02'),
    session_label=('1',),
    bids_filter_file=Path('/data/filter.json'),
    bids_database_dir=Path('/data/db'),
    contrasts=('T2w', 'FLAIR'),
    targets_file=Path('/data/targets.yml'),
    like=(Path('/data/a.json'), Path('/data/b.json')),
    validate=True,
    match_brightness='none',
    missing_metadata='error',
    model='/models/own',
    device='cuda:1',
    skull_strip='none',
    coreg='syn',
    tissues=True,
    output_spaces=('MNI152NLin2009cAsym:res-2',),
    morphometry='volumes',
    fs_recon=True,
    fs_subjects_dir=Path('/subjects'),
    nprocs=8,
    omp_nthreads=4,
    mem_gb=31.5,
    random_seed=7,
    use_plugin=Path('/data/plugin.yml'),
    stop_on_first_crash=True,
    clean_workdir='on-success',
    write_graph=True,
    verbose=2,
    run_id='20250101-120000_abcd',
)


def test_every_field_has_an_unusual_value_in_the_fixture():
    plain = Settings(bids_dir=Path('a'), output_dir=Path('b'), work_dir=Path('c'))
    same = [f.name for f in fields(Settings) if getattr(FULL, f.name) == getattr(plain, f.name)]
    assert same == []


@pytest.mark.parametrize(
    'settings', [FULL, Settings(bids_dir=Path('a'), output_dir=Path('b'), work_dir=Path('c'))]
)
def test_toml_round_trip(settings):
    assert Settings.from_toml(settings.to_toml()) == settings


def test_settings_are_frozen():
    with pytest.raises(FrozenInstanceError):
        FULL.nprocs = 3
    assert FULL.replace(nprocs=3).nprocs == 3
    assert FULL.nprocs == 8


def test_log_dir_is_named_after_the_run():
    assert FULL.log_dir == Path('/data/out/logs/20250101-120000_abcd')
