"""The command line is understood as users write it, and refused in one line where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tumsyn_bids.cli.parser import build_parser, parse


def settings(*options):
    return parse(['/data/ds', '/data/out', 'participant', *options]).settings


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stop:
        settings(*options)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('tumsyn-bids: error: ')
    return line


@pytest.mark.parametrize(
    ('text', 'gb'),
    [('16', 16), ('16G', 16), ('16GB', 16), ('16 GiB', 16), ('16000M', 15.625), ('0.5t', 512)],
)
def test_memory_units(text, gb):
    assert settings('--mem', text).mem_gb == gb


def test_memory_in_megabytes_by_its_own_option():
    assert settings('--mem_mb', '2048').mem_gb == 2
    assert settings('--mem-mb', '2G').mem_gb == 2


@pytest.mark.parametrize('text', ['0', '-3', 'much', '16X', ''])
def test_memory_that_is_none(capsys, text):
    assert '--mem' in refused(capsys, f'--mem={text}')


@pytest.mark.parametrize('spelling', ['--participant-label', '--participant_label'])
def test_labels_with_or_without_prefix(spelling):
    assert settings(spelling, 'sub-01', '02', '01').participant_label == ('01', '02')
    assert settings('--session-id', 'ses-pre', 'post').session_label == ('pre', 'post')


def test_both_spellings_of_every_option_mean_the_same():
    by_name = {
        name: action for action in build_parser()._actions for name in action.option_strings
    }
    hyphened = [name for name in by_name if '-' in name[2:]]
    assert len(hyphened) > 15
    for name in hyphened:
        twin = '--' + name[2:].replace('-', '_')
        assert by_name[twin].dest == by_name[name].dest
        assert by_name[twin].nargs == by_name[name].nargs


def test_options_of_other_bids_apps_are_understood():
    made = settings(
        '--nthreads', '4', '--omp_nthreads', '2', '--mem_gb', '8', '--skip_bids_validation',
        '--notrack', '--stop-on-first-crash', '--write_graph', '--bids_database_dir', '/db', '-vv',
    )  # fmt: skip
    assert (made.nprocs, made.omp_nthreads, made.mem_gb) == (4, 2, 8)
    assert made.stop_on_first_crash
    assert made.write_graph
    assert made.bids_database_dir == Path('/db')
    assert made.verbose == 2


def test_contrasts_ignore_case_and_default_to_what_is_missing():
    assert settings().contrasts == ('missing',)
    assert settings('--contrasts', 't2W', 'flair').contrasts == ('T2w', 'FLAIR')
    assert settings('--contrasts', 'all').contrasts == ('all',)


def test_targets_stand_alone_unless_contrasts_are_asked_for_too():
    assert settings('--targets', 't.yml').contrasts == ()
    assert settings('--like', 'a.json', 'b.json').contrasts == ()
    assert settings('--targets', 't.yml', '--contrasts', 'missing').contrasts == ('missing',)


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request = parse(['ds', 'out', 'participant', '-w', 'scratch', '--targets', 't.yml'])
    here = Path.cwd()
    made = request.settings
    assert (made.bids_dir, made.output_dir) == (here / 'ds', here / 'out')
    (here / 'own').mkdir()
    (here / 'own' / 'config.json').touch()
    assert settings('--model', 'own').model == str(here / 'own')
    assert settings('--model', 'embedded').model == 'embedded'
    assert (made.work_dir, made.targets_file) == (here / 'scratch', here / 't.yml')


def test_defaults_fit_the_machine():
    made = settings()
    assert made.nprocs >= 1
    assert made.mem_gb > 0
    assert made.work_dir == Path.cwd() / 'work'


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (['--contrasts', 'T3w'], 'T3w'),
        (['--contrasts', 'missing', 'T2w'], 'stand alone'),
        (['--device', 'gpu'], 'gpu'),
        (['--device', 'cuda:x'], 'cuda:x'),
        (['--nprocs', '0'], '--nprocs'),
        (['--nprocs', '2', '--omp-nthreads', '3'], '--omp-nthreads'),
        (['--participant-label', 'sub_01'], 'sub_01'),
        (['--random-seed', '-1'], '--random-seed'),
        (['--skull-strip', 'bet'], 'bet'),
        (['--nonsense'], '--nonsense'),
    ],
)
def test_mistakes_are_named(capsys, options, word):
    assert word in refused(capsys, *options)


def test_no_option_is_guessed_from_its_beginning(capsys):
    refused(capsys, '--participant', '01')


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(['--version'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith('tumsyn-bids ')


def test_every_option_is_explained():
    for action in build_parser()._actions:
        assert action.help


def test_nothing_is_set_that_the_settings_do_not_know():
    request = parse(['ds', 'out', 'group', '--dry-run'])
    assert request.analysis_level == 'group'
    assert request.dry_run
