"""What the report says about a session, worded for people."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..acquisition import BIDS_KEYS, Acquisition
from ..plan import SessionPlan
from ..verdicts import failed_images, worst, worst_image

_UNITS = {
    'field_strength': 'T',
    'repetition_time': 's',
    'echo_time': 's',
    'inversion_time': 's',
    'flip_angle': '°',
    'age': 'years',
    'voxel_size': 'mm',
}
_NAMES = {'contrast': 'Contrast', 'age': 'Age', 'sex': 'Sex', 'voxel_size': 'Voxel size'}
_NAMES |= BIDS_KEYS

_SCORES = {'psnr': 'PSNR', 'ssim': 'SSIM', 'mae': 'mean error', 'pearson': 'Pearson r'}

#: Characters of a crash report that are shown; its end says most.
_CRASH_CHARACTERS = 20_000


@dataclass(frozen=True)
class SessionContent:
    """A session's record, ready for the templates. All texts are plain, not HTML.

    Attributes
    ----------
    record : mapping
        As in ``logs/sessions/<label>.json``.
    plan : SessionPlan or None
    """

    record: Mapping
    plan: SessionPlan | None

    @classmethod
    def from_record(cls, record: Mapping) -> SessionContent:
        """Read a record; one without a plan, or with a plan of another version, has none."""
        try:
            plan = SessionPlan.from_json(json.dumps(record.get('plan')))
        except (KeyError, TypeError, AttributeError):
            plan = None
        return cls(record, plan)

    @property
    def session(self) -> str | None:
        return self.record.get('session')

    @property
    def name(self) -> str:
        return f'ses-{self.session}' if self.session else 'the only session'

    @property
    def state(self) -> str:
        return re.sub(r'\W', '', str(self.record.get('state', 'failed')))

    @property
    def started(self) -> str:
        return str(self.record.get('started', ''))[:19].replace('T', ' ')

    @property
    def version(self) -> str:
        return str(self.record.get('version', ''))

    @property
    def message(self) -> str:
        return str(self.record.get('message', ''))

    @property
    def error(self) -> str:
        return str(self.record.get('error', '')).strip()

    @property
    def error_line(self) -> str:
        return self.error.splitlines()[0] if self.error else ''

    @property
    def warnings(self) -> list[str]:
        return [str(text) for text in self.record.get('warnings', ())]

    @property
    def model(self) -> dict[str, str]:
        model = self.record.get('model') or {}
        return (
            {key: str(model.get(key, '')) for key in ('name', 'version', 'sha256')}
            if model
            else {}
        )

    @property
    def checks(self) -> list[dict]:
        """Rows of the table of checks, with values as text."""
        return [
            {**row, 'scan': Path(str(row['scan'])).name, 'value': _score(row.get('value'))['text']}
            for row in self.record.get('checks', ())
        ]

    @property
    def check_result(self) -> str:
        """The worst verdict of the checks; empty if nothing was checked."""
        return worst((row['result'] for row in self.checks), default='')

    @property
    def image_result(self) -> str:
        """The worst verdict on the synthetic images; empty if none was judged."""
        return worst_image(self.record.get('confidence', ()))

    @property
    def failed_images(self) -> list[dict]:
        """The synthetic images that are not to be trusted."""
        return failed_images(self.record.get('confidence', ()))

    @property
    def n_doubts(self) -> int:
        # Refusals that are warnings are among the warnings.
        refused = self.plan.refused if self.plan else ()
        quiet = [item for item in refused if item.severity != 'warning']
        return len(self.warnings) + len(self.findings) + len(quiet)

    @property
    def duration(self) -> str:
        minutes, seconds = divmod(round(float(self.record.get('seconds', 0))), 60)
        return f'{minutes} min {seconds:02d} s' if minutes else f'{seconds} s'

    @property
    def reference(self) -> str:
        return self.plan.scan(self.plan.reference).contrast if self.plan else ''

    @property
    def reference_reason(self) -> str:
        return _clause(self.plan.reference_reason) if self.plan else ''

    @property
    def made(self) -> list[str]:
        """Contrasts that were made, each once; none where the session failed."""
        if self.plan is None or self.state != 'complete':
            return []
        names = (
            task.target.contrast + (f' ({task.target.name})' if task.target.name else '')
            for task in self.plan.tasks
        )
        return list(dict.fromkeys(names))

    @property
    def scans(self) -> list[dict]:
        scans = self.plan.scans if self.plan else ()
        return [
            {
                'name': Path(scan.path).name,
                'contrast': scan.contrast,
                'use': self._use(scan.path),
                'shape': ' × '.join(map(str, scan.shape)),
                'zooms': ' × '.join(f'{zoom:.3g}' for zoom in scan.zooms),
                'protocol': protocol_text(scan.acquisition),
            }
            for scan in scans
        ]

    @property
    def tasks(self) -> list[dict]:
        return [
            {
                'contrast': task.target.contrast,
                'name': task.target.name,
                'source': self.plan.scan(task.source).contrast,
                'source_file': Path(task.source).name,
                'purpose': {'validate': 'only to be compared with the acquired scan'}.get(
                    task.purpose, task.purpose
                ),
                'reason': _clause(task.reason),
                'prompt': task.prompt,
                'parameters': _parameters(task.requested),
                'donors': [Path(donor.path).name for donor in task.donors],
            }
            for task in (self.plan.tasks if self.plan else ())
        ]

    @property
    def findings(self) -> list[dict]:
        return [
            {
                'file': Path(finding.path).name,
                'field': finding.field,
                'value': finding.value,
                'problem': finding.problem,
                'action': finding.action,
            }
            for finding in (self.plan.findings if self.plan else ())
        ]

    @property
    def refused(self) -> list[dict]:
        return [
            {'file': Path(refusal.path).name, 'reason': refusal.reason}
            for refusal in (self.plan.refused if self.plan else ())
        ]

    @property
    def steps(self) -> list[dict]:
        """Steps in the order they are recorded, with their share of the longest one."""
        times = {str(name): float(value) for name, value in self.record.get('steps', {}).items()}
        longest = max(times.values(), default=0) or 1
        return [
            {'name': name, 'seconds': f'{value:.1f}', 'share': round(100 * value / longest)}
            for name, value in times.items()
        ]

    def table(self, kind: str) -> list[dict]:
        """Return the rows of the table of a kind of figures, all with the same columns.

        Agreement for ``validation``, confidence for ``synthesis``, none for others.
        """
        field = {'validation': 'scores', 'synthesis': 'confidence'}.get(kind)
        rows = [dict(row) for row in self.record.get(field, ())]
        names = dict.fromkeys(name for row in rows for name in row if name != 'synthetic')
        return [{_score_name(name): _score(row.get(name)) for name in names} for row in rows]

    def figures(self, kind: str) -> list[Mapping]:
        """Return the figures of one kind, drawn or not.

        Those are the ones that the record lists. A session that failed early lists none: then
        they are what its plan would have led to.
        """
        listed = [item for item in self.record.get('figures', ()) if item.get('kind') == kind]
        return listed or [{'kind': kind, 'title': title} for title in self._expected(kind)]

    def _expected(self, kind: str) -> list[str]:
        if self.plan is None or kind in ('morphometry', 'standard', 'tissues'):
            return []
        tasks = [task for task in self.plan.tasks if kind != 'validation' or _validates(task)]
        if kind in ('synthesis', 'validation'):
            return [
                f'{task.target.contrast} from {self.plan.scan(task.source).contrast}'
                for task in tasks
            ]
        if kind == 'mask':
            return ['Brain mask']
        others = [scan for scan in self.plan.scans if scan.path != self.plan.reference]
        return [f'{scan.contrast} aligned with {self.reference}' for scan in others]

    def crashes(self, output_dir: Path) -> list[dict]:
        """Read the crash reports of the session; only their end where they are long."""
        found = []
        for name in self.record.get('crashes', ()):
            try:
                text = (output_dir / name).read_text(encoding='utf-8', errors='replace')
            except OSError as error:
                text = f'(cannot be read: {error.strerror})'
            if len(text) > _CRASH_CHARACTERS:
                first = text.splitlines()[0][:1000]
                text = f'{first}\n[…]\n{text[-_CRASH_CHARACTERS:]}'
            found.append({'file': str(name), 'text': text})
        return found

    def _use(self, path: str) -> str:
        uses = ['reference'] if path == self.plan.reference else []
        targets = [task.target.contrast for task in self.plan.tasks if task.source == path]
        if targets:
            uses.append('source of ' + ', '.join(dict.fromkeys(targets)))
        return '; '.join(uses) or 'aligned only'


def protocol_text(acquisition: Acquisition) -> str:
    """Word the imaging parameters of a scan; those unknown are left out."""
    shown = ('field_strength', 'manufacturer', 'repetition_time', 'echo_time', 'inversion_time')
    values = {name: getattr(acquisition, name) for name in (*shown, 'flip_angle')}
    words = [
        f'{_short(name)}{_value(name, value)}'
        for name, value in values.items()
        if value is not None
    ]
    return ', '.join(words) or 'nothing known'


def _validates(task) -> bool:
    return task.purpose == 'validate'


def _parameters(target) -> list[dict]:
    values = target.acquisition.to_dict()
    return [
        {
            'name': title,
            'value': _value(name, values[name]),
            'origin': target.provenance.get(name, ''),
        }
        for name, title in _NAMES.items()
        if values[name] is not None or name in target.provenance
    ]


def _value(name: str, value: object) -> str:
    if value is None:
        return 'unknown'
    if isinstance(value, (list, tuple)):
        text = ' × '.join(f'{item:g}' for item in value)
    else:
        text = f'{value:.6g}' if isinstance(value, float) else str(value)
    unit = _UNITS.get(name, '')
    return text + (unit if unit == '°' else f' {unit}' if unit else '')


def _short(name: str) -> str:
    short = {
        'repetition_time': 'TR',
        'echo_time': 'TE',
        'inversion_time': 'TI',
        'flip_angle': 'FA',
    }
    return f'{short[name]} ' if name in short else ''


def _score(value: object) -> dict:
    number = isinstance(value, (int, float)) and math.isfinite(value)
    text = f'{value:.4g}' if number else 'n/a' if isinstance(value, float | None) else str(value)
    return {'text': text, 'number': number or text == 'n/a'}


def _score_name(name: str) -> str:
    """Word the name of a score: ``lut_psnr_brain`` becomes
    ``grey-value table: PSNR brain (dB)``."""
    prefix = 'grey-value table: ' if name.startswith('lut_') else ''
    words = name.removeprefix('lut_').split('_')
    words[0] = _SCORES.get(words[0], words[0])
    unit = ' (dB)' if words[0] == 'PSNR' else ''
    return prefix + ' '.join(words) + unit


def _clause(text: str) -> str:
    """Make a sentence fit for the middle or the end of another one."""
    return text.strip().rstrip('.')
