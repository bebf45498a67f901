"""Every interface keeps the same promises; each does what it says on small images."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

import tumsyn_bids.interfaces as room
from tumsyn_bids.errors import ScanError, SessionError
from tumsyn_bids.interfaces.base import Step, StepInputSpec
from tumsyn_bids.plan import Donor


def all_interfaces():
    found = []
    for module in pkgutil.iter_modules(room.__path__, room.__name__ + '.'):
        for _, item in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(item, Step) and item._work is not Step._work:
                found.append(item)
    return sorted(set(found), key=lambda item: item.__name__)


@pytest.mark.parametrize('interface', all_interfaces(), ids=lambda item: item.__name__)
class TestEveryInterface:
    def test_is_documented(self, interface):
        assert interface.__doc__
        assert interface.__doc__ != Step.__doc__

    def test_every_trait_is_described(self, interface):
        ours = set(interface.input_spec().get()) - set(BaseInterfaceInputSpec().get())
        for spec, names in (
            (interface.input_spec(), ours),
            (interface.output_spec(), interface.output_spec().get()),
        ):
            for name in names:
                assert spec.trait(name).desc, f'{interface.__name__}.{name}'

    def test_can_be_made_and_pickled_without_inputs(self, interface):
        import pickle

        again = pickle.loads(pickle.dumps(interface()))  # noqa: S301 - our own bytes
        assert type(again) is interface

    def test_refuses_to_run_without_its_mandatory_inputs(self, interface, tmp_path):
        with pytest.raises(ValueError, match='requires a value'):
            interface().run(cwd=str(tmp_path))


def test_importing_the_interfaces_imports_nothing_heavy():
    modules = [m.name for m in pkgutil.iter_modules(room.__path__, room.__name__ + '.')]
    code = (
        f'import sys, {", ".join(modules)}; print({{"torch", "ants", "bids"}} & set(sys.modules))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'set()'


class BreakInputSpec(StepInputSpec):
    kind = traits.Enum('ours', 'other', desc='which error')


class BreakOutputSpec(TraitedSpec):
    out_file = File(desc='never made')


class Break(Step):
    """Fail."""

    input_spec = BreakInputSpec
    output_spec = BreakOutputSpec

    def _work(self, folder):
        if self.inputs.kind == 'ours':
            raise ScanError('is truncated', path='/ds/a.nii.gz')
        raise ValueError('first line\nsecond line')


def test_our_errors_pass_unchanged(tmp_path):
    with pytest.raises(ScanError, match=r'^/ds/a.nii.gz: is truncated\.$'):
        Break(kind='ours', scan='/ds/b.nii.gz').run(cwd=str(tmp_path))


def test_other_errors_name_the_scan_and_the_step(tmp_path):
    with pytest.raises(SessionError) as caught:
        Break(kind='other', scan='/ds/b.nii.gz').run(cwd=str(tmp_path))
    text = str(caught.value)
    assert text.startswith('/ds/b.nii.gz: Break failed (ValueError: first line).')
    assert 'second line' not in text


@pytest.fixture
def blob(tmp_path):
    """Return a function that writes a smooth image with one bright ball on a chosen grid."""

    def write(name, *, affine=None, shape=(24, 26, 20), centre=(0, 0, 0)):
        affine = np.diag([3, 3, 3, 1.0]) if affine is None else affine
        affine = affine.copy()
        if not affine[:3, 3].any():
            affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
        world = index @ affine[:3, :3].T + affine[:3, 3]
        distance = np.linalg.norm(world - centre, axis=-1)
        data = (1000 / (1 + np.exp((distance - 20) / 3)) + 10).astype(np.float32)
        path = tmp_path / name
        nb.Nifti1Image(data, affine).to_filename(path)
        return path

    return write


def test_sanitize_scan(blob, tmp_path):
    from tumsyn_bids.interfaces.anatomy import SanitizeScan

    path = blob('scan.nii.gz')
    out = SanitizeScan(in_file=str(path), scan=str(path)).run(cwd=str(tmp_path)).outputs
    img = nb.load(out.out_file)
    assert img.get_data_dtype() == np.float32
    np.testing.assert_allclose(img.get_fdata(), nb.load(path).get_fdata(), rtol=1e-5)
    assert int(img.header['sform_code']) == int(img.header['qform_code']) == 1
    assert isdefined(out.findings)


def test_sanitize_scan_names_a_truncated_file(blob, tmp_path):
    from tumsyn_bids.interfaces.anatomy import SanitizeScan

    path = blob('scan.nii.gz')
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ScanError) as caught:
        SanitizeScan(in_file=str(path), scan=str(path)).run(cwd=str(tmp_path))
    assert caught.value.path == path


def test_resample_brings_a_scan_to_the_reference(blob, tmp_path):
    from tumsyn_bids.anatomy.registration import write_itk
    from tumsyn_bids.interfaces.anatomy import Resample

    fine = blob('fixed.nii', affine=np.diag([2.0, 2, 2, 1]), shape=(40, 38, 36))
    shift = np.eye(4)
    shift[:3, 3] = (6, -3, 9)
    moving = blob('moving.nii', centre=(6, -3, 9), shape=(30, 30, 28))
    write_itk(shift, tmp_path / 'shift.txt')
    out = (
        Resample(
            in_file=str(moving),
            grid_file=str(fine),
            transform_file=str(tmp_path / 'shift.txt'),
            scan=str(moving),
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    found, truth = nb.load(out.out_file), nb.load(fine)
    np.testing.assert_allclose(found.affine, truth.affine)
    difference = np.abs(found.get_fdata() - truth.get_fdata())
    assert np.percentile(difference, 99) < 30  # of 1000
    assert found.get_fdata().max() <= nb.load(moving).get_fdata().max() + 1e-3


class Echo:
    """Stands for a synthesizer: gives the source back on the grid that was asked for."""

    name, version, sha256 = 'echo', '1', 'ab' * 32

    def encode(self, img, *, mask, world=None, acquisition=None):
        assert acquisition.contrast == 'T1w'
        return img, mask, world

    def decode(self, encoded, prompt, grid):
        from tumsyn_bids.grids import resample

        img, _mask, world = encoded
        return resample(img, grid, world=world)

    def in_range(self, acquisition):
        return [f'{acquisition.contrast} is new']


class Doubter:
    """Stands for an examiner: doubts every FLAIR."""

    def __init__(self, synthesizer, encoded, source):
        assert source.contrast == 'T1w'

    def examine(self, image, target):
        from tumsyn_bids.synthesis.confidence import Confidence

        assert image.shape[2] > 0
        return Confidence(0.99, 0.1 if target.contrast == 'FLAIR' else 0.99, 0.02)


@pytest.mark.parametrize('codes', ['RAS', 'LPS', 'PIR', 'SAL'])
def test_synthesize_takes_voxel_sizes_along_the_axes_of_the_head(
    blob, tmp_path, monkeypatch, codes
):
    from tumsyn_bids.acquisition import Acquisition
    from tumsyn_bids.interfaces import synthesis

    monkeypatch.setattr(synthesis, '_synthesizer', lambda model, device: Echo())
    monkeypatch.setattr('tumsyn_bids.synthesis.judged.Examiner', Doubter)
    ras = nb.load(blob('ras.nii', shape=(24, 30, 20), centre=(5, -8, 3)))
    order = nb.orientations.ornt_transform(
        nb.orientations.axcodes2ornt('RAS'), nb.orientations.axcodes2ornt(codes)
    )
    path = tmp_path / 'stored.nii'
    ras.as_reoriented(order).to_filename(path)
    targets = [
        Acquisition(contrast='T2w', voxel_size=(2.0, 1.5, 4.0)),
        Acquisition(contrast='FLAIR'),
    ]
    out = (
        synthesis.Synthesize(
            in_file=str(path),
            mask_file=str(path),
            source={'contrast': 'T1w'},
            prompts=['a', 'b'],
            acquisitions=[target.to_dict() for target in targets],
            model='echo',
            scan=str(path),
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    first, second = map(nb.load, out.out_files)
    assert nb.aff2axcodes(first.affine) == ('R', 'A', 'S')
    np.testing.assert_allclose(first.header.get_zooms(), (2, 1.5, 4), rtol=1e-5)
    assert first.shape == (36, 60, 15)
    np.testing.assert_allclose(second.header.get_zooms(), (1, 1, 1), rtol=1e-5)
    # The ball lies in the same place of the world, however the file was stored.
    data = second.get_fdata()
    centre = np.average(np.argwhere(data > 500), axis=0)
    np.testing.assert_allclose(
        nb.affines.apply_affine(second.affine, centre), (5, -8, 3), atol=0.3
    )
    assert out.warnings[0] == ['T2w is new']
    new, lost = out.warnings[1]
    assert new == 'FLAIR is new'
    assert lost.startswith('synthetic FLAIR: the way back')
    assert [figures['verdict'] for figures in out.confidence] == ['pass', 'fail']
    assert out.model['sha256'] == Echo.sha256


def test_images_get_the_brightness_of_other_scans(tmp_path, monkeypatch):
    from tumsyn_bids.anatomy.brightness import LANDMARKS, image_landmarks
    from tumsyn_bids.errors import ScanError
    from tumsyn_bids.interfaces.synthesis import MatchBrightness

    wanted, asked = {}, []

    def brain(path, contrast, *, method, seed):
        asked.append(Path(path).name)
        img = nb.Nifti1Image(np.ones((4, 4, 4), dtype=np.float32), np.eye(4))
        return img, img

    def landmarks(path, reference, mask, *, seed):
        asked.append(Path(path).name)
        if path not in wanted:
            raise ScanError('it is dark', path=path)
        return wanted[path]

    monkeypatch.setattr('tumsyn_bids.anatomy.brightness.find_brain', brain)
    monkeypatch.setattr('tumsyn_bids.anatomy.brightness.scan_landmarks', landmarks)
    reference = tmp_path / 'reference.nii'
    reference.write_bytes(b'reference')
    donors = [tmp_path / f'{name}.nii' for name in ('one', 'two', 'dark')]
    for path, power in zip(donors, (1, 2, None), strict=True):
        path.write_bytes(b'donor')
        if power:
            wanted[str(path)] = [(level / 98) ** power for level in LANDMARKS]
    ramp = np.zeros((12, 12, 12), dtype=np.float32)
    ramp[1:11, 1:11, 1:11] = np.linspace(10, 1000, 1000).reshape(10, 10, 10)
    image, mask = tmp_path / 'image.nii', tmp_path / 'mask.nii'
    nb.Nifti1Image(ramp, np.eye(4)).to_filename(image)
    nb.Nifti1Image((ramp > 0).astype(np.uint8), np.eye(4)).to_filename(mask)

    def run(donors):
        step = MatchBrightness(
            in_files=[str(image)] * len(donors),
            mask_file=str(mask),
            warnings=[['old']] * len(donors),
            contrasts=['T2w'] * len(donors),
            donors=[[asdict(Donor(x, 'T2w', str(reference), 'T1w')) for x in y] for y in donors],
            seed=1,
            cache_dir=str(tmp_path / 'cache'),
        )
        return step.run(cwd=str(tmp_path)).outputs

    one, two, dark = map(str, donors)
    out = run([[one, two], [dark, one], [dark], []])
    assert out.donors == [[one, two], [one], [], []]
    found = image_landmarks(nb.load(out.out_files[0]), nb.load(mask))
    expected = np.mean([wanted[one], wanted[two]], axis=0)
    np.testing.assert_allclose(found / found[LANDMARKS.index(98.0)], expected, atol=5e-3)
    # What does not help is told; an image that nothing helps stays as it is.
    assert len(out.warnings[0]) == 1
    assert 'dark.nii' in out.warnings[1][1]
    assert 'no other scan' in out.warnings[2][-1]
    assert out.out_files[2:] == [str(image)] * 2
    # A scan is looked at once for all sessions, until it changes; so is a session's brain.
    assert (asked.count('one.nii'), asked.count('reference.nii')) == (1, 1)
    run([[one]])
    assert asked.count('one.nii') == 1
    donors[0].write_bytes(b'another donor')
    run([[one]])
    assert (asked.count('one.nii'), asked.count('reference.nii')) == (2, 1)
    reference.write_bytes(b'another reference')
    run([[one]])
    assert (asked.count('one.nii'), asked.count('reference.nii')) == (3, 2)


def test_score_is_best_for_the_same_image(blob, tmp_path):
    from tumsyn_bids.interfaces.synthesis import Score

    one, other = blob('one.nii'), blob('other.nii', centre=(12, 0, 0))
    mask = nb.load(one)
    inside = (mask.get_fdata() > 300).astype(np.uint8)
    nb.Nifti1Image(inside, mask.affine).to_filename(tmp_path / 'mask.nii')

    def scores(acquired):
        return (
            Score(
                synthetic_file=str(one),
                acquired_file=str(acquired),
                source_file=str(other),
                mask_file=str(tmp_path / 'mask.nii'),
                scan=str(acquired),
            )
            .run(cwd=str(tmp_path))
            .outputs.scores
        )

    same, shifted = scores(one), scores(other)
    assert same['ssim_brain'] == pytest.approx(1)
    assert same['pearson'] == pytest.approx(1)
    assert shifted['ssim_brain'] < 0.9
    assert shifted['psnr_brain'] < same['psnr_brain']


def test_a_figure_that_fails_stops_nothing(monkeypatch, tmp_path, session_plan):
    from tumsyn_bids.interfaces.figures import DrawMask

    def broken(*args, **kwargs):
        raise RuntimeError('no ink')

    monkeypatch.setattr('tumsyn_bids.reports.figures.plot_mask', broken)
    path = session_plan.reference
    out = (
        DrawMask(
            plan=session_plan.to_json(),
            scan=path,
            bids_dir=str(tmp_path),
            output_dir=str(tmp_path / 'out'),
            in_file=path,
            mask_file=path,
        )
        .run(cwd=str(tmp_path))
        .outputs
    )
    (figure,) = out.figures
    assert figure['reason'] == 'RuntimeError: no ink'


def test_summary_gathers_warnings_once(tmp_path, session_plan):
    from tumsyn_bids.interfaces.derivatives import Summarize

    finding = {'path': '/x/a.nii', 'field': 'qform', 'problem': 'differs', 'action': 'left alone'}
    Summarize(
        plan=session_plan.to_json(),
        bids_dir=str(tmp_path),
        output_dir=str(tmp_path),
        summary_file=str(tmp_path / 'summary.json'),
        outputs=[session_plan.reference],
        findings=[finding],
        doubts=['small brain', 'small brain'],
        model_warnings=[['odd'], ['odd', 'odder']],
    ).run(cwd=str(tmp_path))
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['warnings'] == [
        'a.nii: qform: differs (left alone)',
        'small brain',
        'odd',
        'odder',
    ]
    assert summary['mended'] == ['a.nii: qform: differs (left alone)']
    assert summary['scores'] == []


@pytest.fixture
def session_plan(blob):
    from tumsyn_bids.acquisition import Acquisition
    from tumsyn_bids.plan import Scan, SessionPlan

    path = str(blob('sub-01_T1w.nii'))
    scan = Scan(path, Acquisition(contrast='T1w'), {'subject': '01'}, (24, 26, 20), (3, 3, 3))
    return SessionPlan('01', None, (scan,), path, 'it is the T1w', ())
