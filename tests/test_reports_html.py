"""The report: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tumsyn_bids.acquisition import Acquisition
from tumsyn_bids.plan import Finding, Refusal, Scan, SessionPlan, SynthesisTask, Target
from tumsyn_bids.reports import html
from tumsyn_bids.reports.content import SessionContent, protocol_text
from tumsyn_bids.reports.html import write_report

SHA = '5e' * 32
EVIL = '<script>alert("x")</script>&amp;'


def plan(session='1', text='') -> SessionPlan:
    acquisition = Acquisition('T1w', 34.5, 'F', 3.0, 'Siemens', (1.0, 1.0, 3.0), 2.3, 0.003)
    t1w = Scan(
        '/raw/sub-01_T1w.nii.gz', acquisition, {'subject': '01'}, (9, 9, 9), (1.0, 1.0, 3.0)
    )
    flair = Scan('/raw/sub-01_FLAIR.nii.gz', Acquisition('FLAIR'), {}, (9, 9, 9), (0.9, 0.9, 5.0))
    target = Target(
        'fine' + text,
        Acquisition('T2w', voxel_size=(0.8, 0.8, 1.2), echo_time=0.1),
        {'echo_time': 'default protocol at 3 T' + text, 'age': 'nobody knows'},
    )
    validated = Target('', Acquisition('FLAIR'), {})
    tasks = (
        SynthesisTask(
            target, t1w.path, 'Age: None; Modality: T2w' + text, 'missing', 'why' + text
        ),
        SynthesisTask(validated, t1w.path, 'Modality: FLAIR', 'validate', 'the only other'),
    )
    return SessionPlan(
        '01',
        session,
        (t1w, flair),
        t1w.path,
        'the only T1w' + text,
        tasks,
        (Refusal('/raw/sub-01_run-2_T1w.nii.gz', 'a single slice' + text),),
        (Finding('/raw/participants.tsv', 'age' + text, '-3' + text, 'negative', 'as missing'),),
    )


def record(session='1', state='complete', text='', **more) -> dict:
    return {
        'participant': '01',
        'session': session,
        'state': state,
        'started': '2025-03-04T10:11:12+00:00',
        'seconds': 125.4,
        'version': '0.1.0',
        'message': '2 synthetic images' + text,
        'error': '',
        'warnings': ['small brain' + text],
        'steps': {'bias' + text: 20.0, 'synthesis': 80.0},
        'model': {'name': 'embedded' + text, 'version': '1', 'sha256': SHA},
        'scores': [{'contrast': 'FLAIR', 'psnr_brain': 17.456, 'lut_ssim_whole': float('nan')}],
        'confidence': [{'contrast': 'T2w', 'cycle': 0.87654, 'verdict': 'warn' + text}],
        'figures': [
            figure('mask', 'Brain mask' + text),
            figure('registration', 'FLAIR aligned'),
            figure('synthesis', 'T2w from T1w', caption='the prompt' + text),
            figure('validation', 'FLAIR compared'),
        ],
        'crashes': [],
        'plan': json.loads(plan(session, text).to_json()),
        **more,
    }


def figure(kind, title, **more) -> dict:
    return {'kind': kind, 'title': title, 'path': f'sub-01/figures/sub-01_{kind}.svg', **more}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / 'out dir'
    (folder / 'sub-01' / 'figures').mkdir(parents=True)
    for kind in ('mask', 'registration', 'synthesis', 'validation'):
        path = folder / 'sub-01' / 'figures' / f'sub-01_{kind}.svg'
        path.write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
            f'<text>drawn {kind} ü</text></svg>',
            encoding='utf-8',
        )
    return folder


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self._silent = 0
        self.text = ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._silent += tag in ('style', 'script')
        for name, value in attrs:
            if name in ('src', 'href', 'data', 'action', 'poster', 'xlink:href'):
                self.addresses.append(value)
            if name == 'id':
                self.ids.append(value)
            if name.startswith('on'):
                self.handlers.append(name)

    def handle_endtag(self, tag):
        self._silent -= tag in ('style', 'script')

    def handle_data(self, data):
        if not self._silent:
            self.text += data


def read(path) -> Page:
    return Page(path.read_text(encoding='utf-8'))


def test_report_holds_everything(out):
    page = read(write_report(out, '01', [record()]))
    for words in (
        'sub-01: tumsyn-bids report',
        SHA,
        'Age: None; Modality: T2w',
        'default protocol at 3 T',
        '0.8 × 0.8 × 1.2 mm',
        'nobody knows',
        'a single slice',
        'negative',
        'small brain',
        'drawn mask ü',
        'drawn registration',
        'drawn synthesis',
        'drawn validation',
        'PSNR brain (dB)',
        '17.46',
        '2 min 05 s',
        '80.0',
        'arXiv:2409.16818',
        'Avants',
        'No errors to report',
        'SYNTHETIC',
    ):
        assert words in page.text, words
    assert 'nan' not in page.text.split()


def test_report_needs_nothing_else(out):
    path = write_report(out, '01', [record()])
    page = read(path)
    assert all(address.startswith(('#', 'data:')) for address in page.addresses)
    assert {'link', 'script', 'iframe', 'object', 'embed'}.isdisjoint(page.tags)
    assert 'url(' not in path.read_text()
    assert '@import' not in path.read_text()


def test_links_of_the_navigation_lead_somewhere(out):
    page = read(write_report(out, '01', [record('1'), record('2')]))
    targets = {address[1:] for address in page.addresses if address.startswith('#')}
    assert targets <= set(page.ids)
    assert len(targets) > 10
    assert len(page.ids) == len(set(page.ids))


def test_text_of_a_dataset_is_escaped(out):
    evil = record(
        state='failed',
        text=EVIL,
        error=f'sub-01{EVIL}: bad',
        crashes=['logs/crash.txt'],
        methods='*N4*' + EVIL,
    )
    evil['figures'].append(figure('mask', 'absent' + EVIL, path='x', reason='why' + EVIL))
    evil['scores'][0]['contrast' + EVIL] = EVIL
    (out / 'logs').mkdir()
    (out / 'logs' / 'crash.txt').write_text('<img src=x onerror=alert(1)>' + EVIL)
    page = read(write_report(out, '01', [evil]))
    assert 'script' not in page.tags
    assert page.handlers == []
    assert all(address.startswith('#') for address in page.addresses)
    assert page.text.count(EVIL) >= 20
    assert '<img src=x onerror=alert(1)>' in page.text


def test_braces_in_texts_are_no_templates(out):
    text = '{{ 7 * 7 }}{subject}{% endfor %}'
    page = read(write_report(out, '01', [record(text=text)]))
    assert 'small brain' + text in page.text


def test_missing_and_damaged_figures_are_explained(out):
    folder = out / 'sub-01' / 'figures'
    (folder / 'sub-01_mask.svg').unlink()
    (folder / 'sub-01_registration.svg').write_text('<svg><image')
    (folder / 'sub-01_synthesis.svg').write_bytes(b'\xff\xfe\x00')
    broken = record()
    broken['figures'][3]['reason'] = 'ValueError: empty mask'
    text = ' '.join(read(write_report(out, '01', [broken])).text.split())
    assert 'Brain mask: not produced, because its file is missing.' in text
    assert 'FLAIR aligned: not produced, because its file is damaged' in text
    assert 'T2w from T1w: not produced, because its file is damaged' in text
    assert 'FLAIR compared: not produced, because ValueError: empty mask.' in text


def test_failed_session_says_so_beside_a_complete_one(out):
    failed = record(
        '2',
        'failed',
        error='sub-01_T1w.nii.gz: truncated. Copy it again.\nmore',
        figures=[],
        model={},
        scores=[],
        crashes=['logs/crash-1.txt', 'logs/none.txt'],
    )
    (out / 'logs').mkdir()
    (out / 'logs' / 'crash-1.txt').write_text('first line\n' + 'x' * 90_000 + '\nlast line')
    path = write_report(out, '01', [record('1'), failed])
    page = read(path)
    text = ' '.join(page.text.split())
    assert 'ses-2 failed. sub-01_T1w.nii.gz: truncated. Copy it again.' in text
    because = 'not produced, because the session failed: sub-01_T1w.nii.gz: truncated'
    assert f'Brain mask: {because}' in text
    assert f'T2w from T1w: {because}' in text
    assert f'FLAIR aligned with T1w: {because}' in text
    assert 'drawn mask' in text
    assert 'first line' in text
    assert 'last line' in text
    assert 'cannot be read' in text
    assert path.stat().st_size < 120_000
    assert text.index('session 1') < text.index('session 2')


def test_session_that_was_never_planned(out):
    unplanned = record(None, 'failed', plan=None, figures=[], scores=[], model={}, steps={})
    unplanned['error'] = 'no usable scan'
    text = ' '.join(read(write_report(out, '01', [unplanned])).text.split())
    assert 'No plan: no usable scan' in text
    assert 'were not recorded' in text


def test_record_with_the_least(out):
    assert write_report(out, '01', [{'session': None}]).is_file()
    assert write_report(out, '01', []).is_file()


def test_labels_with_a_plus_sign_have_a_whole_report(out):
    plain = read(write_report(out, 'AB', [record('12'), record('2')]))
    path = write_report(out, 'A+B', [record('1+2'), record('2')])
    assert path.name == 'sub-A+B.html'
    page = read(path)
    wanted = plain.text.replace('sub-AB', 'sub-A+B').replace('ses-12', 'ses-1+2')
    assert page.text.split() == wanted.replace('session 12', 'session 1+2').split()
    assert 'session 1+2' in page.text


def test_subject_without_sessions(out):
    page = read(write_report(out, '01', [record(None)]))
    assert 'drawn synthesis' in page.text
    assert 'Reports for' not in page.text


def test_figures_beyond_the_limit_are_linked(out, monkeypatch):
    monkeypatch.setattr(html, 'EMBEDDED_BYTES', 250)
    page = read(write_report(out, '01', [record()]))
    linked = [address for address in page.addresses if address.endswith('.svg')]
    assert 'drawn mask' in page.text
    assert 'sub-01/figures/sub-01_synthesis.svg' in linked
    assert all((out / address).is_file() for address in linked)
    assert 'Not embedded' in page.text


def test_report_is_replaced_as_a_whole(out):
    first = write_report(out, '01', [record()]).read_bytes()
    assert write_report(out, '01', [record()]).read_bytes() == first
    assert sorted(item.name for item in out.iterdir()) == ['sub-01', 'sub-01.html']


def test_plan_of_another_version_does_no_harm():
    assert SessionContent.from_record({'plan': {'subject': '01'}}).plan is None
    assert SessionContent.from_record({'plan': 'text'}).plan is None


def test_a_contrast_that_is_made_and_validated_is_listed_once():
    content = SessionContent.from_record(record())
    twice = replace(content.plan, tasks=content.plan.tasks * 2)
    assert replace(content, plan=twice).made == content.made != []


def test_protocol_is_worded_with_units():
    acquisition = Acquisition('T1w', field_strength=3.0, repetition_time=2.3, flip_angle=8.0)
    assert protocol_text(acquisition) == '3 T, TR 2.3 s, FA 8°'
    assert protocol_text(Acquisition('T1w')) == 'nothing known'


def check_row(result, message=''):
    row = {'step': 'co-registration', 'scan': 'bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz'}
    row |= {'contrast': 'FLAIR', 'measure': 'overlap', 'value': 0.8123}
    return {**row, 'result': result, 'message': message}


def test_a_failed_check_is_told_at_the_top_and_in_its_table(out):
    look = 'look at the outline' + EVIL
    checked = record(checks=[check_row('pass'), check_row('fail', look)])
    page = Page(write_report(out, '01', [checked]).read_text(encoding='utf-8'))
    assert 'co-registration of sub-01_FLAIR.nii.gz failed its check' in page.text
    assert page.text.count('look at the outline') == 2
    assert '0.8123' in page.text
    assert 'script' not in page.tags


def test_an_image_that_failed_is_told_at_the_top(out):
    image = {'synthetic': 'bids::sub-01/anat/sub-01_desc-synth_T2w.nii.gz', 'contrast': 'T2w'}
    image |= {'source': 'T1w', 'cycle': 0.4, 'verdict': 'fail'}
    path = write_report(out, '01', [record(confidence=[image])])
    text = ' '.join(read(path).text.split())
    assert 'the synthetic T2w from T1w is not to be trusted (cycle 0.40)' in text
    assert 'Do not use sub-01_desc-synth_T2w.nii.gz' in text
    assert '<span class="badge fail">fail</span>' in path.read_text()
    assert 'not to be trusted (' not in read(write_report(out, '01', [record()])).text


def test_without_checks_there_is_no_section_for_them(out):
    page = Page(write_report(out, '01', [record()]).read_text(encoding='utf-8'))
    assert 'What to look at' not in page.text
