"""The report of a subject: one HTML file that needs nothing else.

The fragments of the report are written, escaped, by our own templates; the assembler of NiReports
puts them into the order of ``data/spec.yml`` and into our page template.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from ..files import write_text
from .content import SessionContent
from .templates import FOLDER, render

#: The assembler knows no labels with a plus sign, which BIDS allows. The subject's is not shown,
#: so fragments carry another; sessions' are, so the template puts the sign back in their place.
_SUBJECT, _PLUS = 'subject', 'xPLUSx'

#: Figures of one session that are embedded, in bytes; those beyond are linked.
EMBEDDED_BYTES = 12_000_000

_INTRODUCTIONS = {
    'mask': 'The outline should follow the surface of the brain and leave out eyes, skull and '
    'neck.',
    'registration': 'The green outline is the brain of the reference. After the alignment it '
    'should fit the scan in every slice. Point at the picture: the scan and the reference '
    'alternate, and anatomy should stay where it is.',
    'synthesis': 'Each synthetic image below the scan that it was computed from. Compare the '
    'anatomy: folds, ventricles and lesions should be in the same place. The table says how far '
    'each image can be trusted: whether the model recognises the source (reconstruction), whether '
    'the image leads back to it (cycle; both at best 1), and how far the brightness of the '
    'tissues is from what the prompt asks (prompt deviation; at best 0).',
    'tissues': 'Grey matter red, white matter white, CSF blue. Cortex should be a closed ribbon, '
    'and lesions should not be called CSF.',
    'standard': 'The outline is the average brain of the space: it should follow the surface of '
    'this brain, and the folds inside should look natural.',
    'morphometry': 'Structures of the brain, coloured as in FreeSurfer. Cortex should follow the '
    'folds, ventricles the dark CSF; the sizes below are estimates by registration of an atlas.',
    'validation': 'Contrasts that were acquired were synthesized as well, from another scan, and '
    'compared with the acquired image within the brain.',
}


def write_report(output_dir: str | Path, subject: str, records: Sequence[Mapping]) -> Path:
    """Write the report of a subject, ``sub-<subject>.html``.

    Parameters
    ----------
    output_dir : path-like
        The output dataset; paths inside the records are relative to it.
    subject : str
        Label without ``sub-``.
    records : sequence of mapping
        One for each session: ``tumsyn_bids.bids.status.SessionRecord.to_dict()``, which is what
        ``logs/sessions/*.json`` hold. Sessions of former runs belong to it. Figures that a record
        lists and that do not exist, or are damaged, are replaced by a sentence that says why.

    Returns
    -------
    Path
        The report, replaced as a whole.
    """
    from nireports.assembler.report import Report

    output_dir = Path(output_dir)
    sessions = [SessionContent.from_record(record) for record in records]
    with tempfile.TemporaryDirectory(prefix='tumsyn-report-') as name:
        folder = Path(name)
        _write_fragments(folder, output_dir, sessions)
        report = Report(
            folder,
            None,
            bootstrap_file=_bootstrap(folder, subject),
            out_filename=str(folder / 'report.html'),
            subject=_SUBJECT,
        )
        report.generate_report()
        text = (folder / 'report.html').read_text(encoding='utf-8')
    return write_text(output_dir / f'sub-{subject}.html', text)


def _bootstrap(folder: Path, subject: str) -> Path:
    import yaml

    spec = yaml.safe_load((FOLDER / 'spec.yml').read_text(encoding='utf-8'))
    # Only an absolute path is understood; it is known when the package is installed.
    spec['template_path'] = str((FOLDER / 'report.html.j2').absolute())
    spec['title'] = spec['title'].format(subject=subject)
    path = folder / 'spec.yml'
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding='utf-8')
    return path


def _write_fragments(folder: Path, output_dir: Path, sessions: Sequence[SessionContent]) -> None:
    place = folder / f'sub-{_SUBJECT}' / 'figures'
    place.mkdir(parents=True)

    def put(desc: str, text: str, session: str | None = None) -> None:
        stem = f'sub-{_SUBJECT}'
        stem += f'_ses-{session.replace("+", _PLUS)}' if session else ''
        # The assembler reads with the encoding of the locale, so beyond ASCII nothing is safe.
        ascii_only = text.encode('ascii', 'xmlcharrefreplace')
        (place / f'{stem}_desc-{desc}_report.html').write_bytes(ascii_only)

    models = {session.model['sha256']: session.model for session in sessions if session.model}
    put('overview', render('overview.html.j2', sessions=sessions, models=list(models.values())))
    for session in sessions:
        put('plan', render('plan.html.j2', session=session), session.session)
        if session.checks:
            put('checks', render('checks.html.j2', session=session), session.session)
        put('runtime', render('runtime.html.j2', session=session), session.session)
        for kind, text in _figure_fragments(session, output_dir).items():
            put(kind, text, session.session)
    put('methods', _methods(sessions))
    put('errors', _errors(sessions, output_dir))


def _figure_fragments(session: SessionContent, output_dir: Path) -> dict[str, str]:
    budget = _Budget(EMBEDDED_BYTES)
    fragments = {}
    for kind, introduction in _INTRODUCTIONS.items():
        figures = [_figure(item, session, output_dir, budget) for item in session.figures(kind)]
        scores = session.table(kind)
        if figures or scores:
            fragments[kind] = render(
                'figures.html.j2', intro=introduction, figures=figures, scores=scores
            )
    return fragments


class _Budget:
    """Bytes that may still be embedded."""

    def __init__(self, size: int):
        self._left = size

    def allows(self, size: int) -> bool:
        if size > self._left:
            return False
        self._left -= size
        return True


def _figure(item: Mapping, session: SessionContent, output_dir: Path, budget: _Budget) -> dict:
    figure = {
        'title': item.get('title', ''),
        'caption': item.get('caption', ''),
        'table': item.get('table') or [],
        'svg': None,
        'link': None,
        'reason': item.get('reason') or '',
    }
    if figure['reason']:
        return figure  # a file that is there nonetheless is a former run's
    path = output_dir / str(item.get('path') or 'absent')
    try:
        figure['svg'] = _read_svg(path) if budget.allows(path.stat().st_size) else None
        figure['link'] = path.relative_to(output_dir).as_posix()
    except OSError:
        figure['reason'] = _absence(session)
    except (ET.ParseError, UnicodeDecodeError) as error:
        figure['reason'] = f'its file is damaged ({error})'
    return figure


def _absence(session: SessionContent) -> str:
    if session.error_line:
        return f'the session failed: {session.error_line.rstrip(".")}'
    return 'its file is missing'


def _read_svg(path: Path):
    """Return a figure as markup for the page.

    Raises
    ------
    OSError
    ET.ParseError
        Where the file is not well formed: it would break the page.
    """
    from markupsafe import Markup

    text = path.read_text(encoding='utf-8')
    # Our own file, written by figures.py with all text escaped; a foreign one would have to be
    # well-formed XML at least.
    ET.fromstring(text)
    return Markup(re.sub(r'^\s*<\?xml[^>]*\?>', '', text))


def _methods(sessions: Sequence[SessionContent]) -> str:
    last = sessions[-1] if sessions else SessionContent({}, None)
    steps = ' '.join(str(last.record.get('methods') or '').replace('*', '').split())
    return render('methods.html.j2', version=last.version, model=last.model, steps=steps)


def _errors(sessions: Sequence[SessionContent], output_dir: Path) -> str:
    failures = [
        {
            'name': session.name,
            'error': session.error or 'no reason was recorded',
            'crashes': session.crashes(output_dir),
        }
        for session in sessions
        if session.error or session.state == 'failed'
    ]
    return render('errors.html.j2', failures=failures)
