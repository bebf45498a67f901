"""From a dataset to the plan of each session: reference, targets, and a source for each.

The rules, which ``docs/protocols.md`` explains to users:

*Validation*: every acquired contrast that the run is about is made from another scan as well,
with the protocol of the acquired scan, on a 1 mm grid.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..acquisition import BIDS_KEYS, CONTRASTS, Acquisition
from ..errors import ScanError, SessionError, TumsynError, UsageError
from ..plan import Finding, Refusal, Scan, SessionPlan, SynthesisTask, Target
from ..prompt import render_prompt
from ..targets import (
    PROTOCOL_FIELDS,
    check_unique,
    default_target,
    is_protocol,
    resolve_target,
    target_like,
)
from ..values import TREATED_AS_MISSING
from .choice import choose_reference, choose_source
from .donors import Donors
from .layout import check_dataset, list_participants, list_sessions, match_participants
from .metadata import MetadataReader
from .modal import dataset_protocols
from .requests import requested_targets as requested_targets  # part of planning's interface
from .selection import images_by_session, select_scans

if TYPE_CHECKING:
    from bids.layout import BIDSLayout

#: What ``--contrasts missing`` is about.
USUAL_CONTRASTS = ('T1w', 'T2w', 'FLAIR')
_LEFT_UNKNOWN = 'left unknown'
_WANTED_METADATA = ('field_strength', 'manufacturer', 'repetition_time', 'echo_time')


@dataclass(frozen=True)
class SessionFailure:
    """A session that cannot be planned, and what was found in it.

    Attributes
    ----------
    subject : str
    session : str or None
    error : TumsynError
        Names the file at fault, if any, and the remedy.
    refused : tuple of Refusal
    findings : tuple of Finding
    details : str
        The traceback, where the error is one of the program.
    skipped : bool
        The session has no anatomical image at all, so that there is nothing to do.
    """

    subject: str
    session: str | None
    error: TumsynError
    refused: tuple[Refusal, ...] = ()
    findings: tuple[Finding, ...] = ()
    details: str = ''
    skipped: bool = False

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-1``."""
        stem = f'sub-{self.subject}'
        return f'{stem}_ses-{self.session}' if self.session else stem


def build_plans(
    layout: BIDSLayout,
    *,
    participant_label: Iterable[str] = (),
    session_label: Iterable[str] = (),
    contrasts: Sequence[str] = ('missing',),
    targets: Sequence[Target] = (),
    validate: bool = False,
    filters: dict[str, dict] | None = None,
    missing_metadata: str = 'warn',
    match_brightness: str = 'dataset',
) -> tuple[list[SessionPlan], list[SessionFailure]]:
    """Plan every session that is asked for.

    Parameters
    ----------
    layout : BIDSLayout
        From :func:`~tumsyn_bids.bids.layout.index_dataset`, of the same participants.
    participant_label, session_label : iterable of str
        With or without ``sub-`` and ``ses-``; empty means all.
    contrasts : sequence of str
        ``('missing',)``: which of T1w, T2w, FLAIR a session lacks; ``('all',)``: all seven; or
        names; empty if only ``targets`` are asked for.
    targets : sequence of Target
        Further targets, from :func:`~tumsyn_bids.bids.requests.requested_targets`.
    validate : bool
        Make acquired contrasts too.
    filters : dict, optional
        From :func:`~tumsyn_bids.bids.layout.load_filters`.
    missing_metadata : {'warn', 'error', 'none'}
        What absent or implausible imaging metadata of a used scan are: findings, a failure of
        the session, or (absent ones) nothing.
    match_brightness : {'dataset', 'none'}
        Whether images whose protocol ``targets`` do not state take their brightness from scans
        of other people; see :mod:`~tumsyn_bids.bids.donors`.

    Returns
    -------
    plans : list of SessionPlan
        Sorted by participant and session. One without tasks has all that was asked for.
    failures : list of SessionFailure
        Sessions without a usable scan, with an unreadable sidecar, or (policy ``'error'``) with
        metadata missing; also those at which the program itself fails.

    Raises
    ------
    UsageError
        A participant, session or contrast that does not exist, or two targets of one name.
    """
    reader = MetadataReader(layout.root)
    builder = _Builder(
        layout=layout,
        reader=reader,
        contrasts=_contrast_names(contrasts),
        only_missing=tuple(contrasts) == ('missing',),
        targets=tuple(targets),
        validate=validate,
        filters=filters,
        missing_metadata=missing_metadata,
        donors=Donors(layout, reader, filters) if match_brightness == 'dataset' else None,
    )
    check_unique([*builder.targets, *map(default_target, builder.contrasts)])
    sessions, failures = _sessions(layout, participant_label, session_label)
    images = images_by_session(layout)
    plans = []
    for subject, session in sessions:
        try:
            outcome = builder.build(subject, session, images.get((subject, session), []))
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - one session's trouble shall not stop the others
            outcome = _unexpected(layout, subject, session, error)
        (plans if isinstance(outcome, SessionPlan) else failures).append(outcome)
    return plans, failures


def _contrast_names(contrasts: Sequence[str]) -> tuple[str, ...]:
    if tuple(contrasts) == ('missing',):
        return USUAL_CONTRASTS
    if tuple(contrasts) == ('all',):
        return tuple(CONTRASTS)
    unknown = [name for name in contrasts if name not in CONTRASTS]
    if unknown:
        raise UsageError(
            f'"{unknown[0]}" is no contrast',
            field='--contrasts',
            remedy=f'Use missing, all, or some of {", ".join(CONTRASTS)}',
        )
    return tuple(dict.fromkeys(contrasts))


def _sessions(
    layout, participant_label, session_label
) -> tuple[list[tuple[str, str | None]], list[SessionFailure]]:
    """Return participants and sessions, and the participants whose folder cannot be read."""
    root = check_dataset(layout.root)
    labels = list(participant_label)
    subjects = match_participants(root, labels) if labels else list_participants(root)
    if not subjects:
        raise UsageError(
            'the dataset has no participant',
            path=root,
            remedy='Participants are folders whose names begin with "sub-"',
        )
    pairs, failures = [], []
    for label in subjects:
        try:
            pairs += [(label, session) for session in list_sessions(layout, label)]
        except OSError as error:
            failures.append(_unexpected(layout, label, None, error))
    wanted = {str(label).removeprefix('ses-') for label in session_label}
    if not wanted:
        return pairs, failures
    chosen = [pair for pair in pairs if pair[1] in wanted]
    absent = wanted - {session for _, session in chosen}
    if absent:
        there = sorted({session for _, session in pairs if session}) or ['none']
        raise UsageError(
            f'no session {", ".join(sorted(absent))} among these participants; '
            f'there are {", ".join(there[:10])}',
            path=root,
            field='--session-label',
            remedy='Check the labels',
        )
    return chosen, failures


def _unexpected(layout, subject: str, session: str | None, error: Exception) -> SessionFailure:
    """Word what nobody has foreseen, as the failure of one session."""
    folder = _session_folder(layout.root, subject, session)
    details = ''.join(traceback.format_exception(error))
    if isinstance(error, OSError):
        worded = SessionError(
            f'it cannot be read ({error.strerror or error})',
            path=error.filename or folder,
            remedy='Check its permissions and the disk',
        )
    else:
        worded = SessionError(
            f'the program failed at it ({type(error).__name__}: {str(error)[:200]})',
            path=folder,
            remedy='Look for odd values in its sidecars and tables, and please report the failure',
        )
    return SessionFailure(subject, session, worded, details=details)


def _session_folder(root: str | Path, subject: str, session: str | None) -> Path:
    """Return the folder of a session, or of a participant without sessions."""
    folder = Path(root) / f'sub-{subject}'
    return folder / f'ses-{session}' if session else folder


@dataclass
class _Builder:
    """Plans one session after the other; what concerns the whole dataset is read once."""

    layout: BIDSLayout
    reader: MetadataReader
    contrasts: tuple[str, ...]
    only_missing: bool
    targets: tuple[Target, ...]
    validate: bool
    filters: dict[str, dict] | None
    missing_metadata: str
    donors: Donors | None
    modal: dict[str, Acquisition] | None = None

    def build(self, subject: str, session: str | None, images) -> SessionPlan | SessionFailure:
        refused: list[Refusal] = []
        findings: list[Finding] = []
        try:
            scans, refused, findings = select_scans(
                self.layout, subject, session, self.filters, reader=self.reader, images=images
            )
            if not scans:
                raise self._nothing_usable(subject, session, refused)
            # What is odd about a person is found again with each scan.
            findings = [*dict.fromkeys(findings), *self._absent(scans)]
            self._judge(findings)
        except UsageError:
            raise
        except TumsynError as error:
            found = (tuple(refused), tuple(findings))
            return SessionFailure(subject, session, error, *found, skipped=not images)
        reference, why = choose_reference(scans)
        unusable = {item.acquired for item in refused}
        return SessionPlan(
            subject=subject,
            session=session,
            scans=tuple(scans),
            reference=reference.path,
            reference_reason=why,
            tasks=tuple(self._with_donors(self._tasks(scans, reference, unusable), subject)),
            refused=tuple(refused),
            findings=tuple(findings),
        )

    def _nothing_usable(self, subject, session, refused) -> SessionError:
        folder = _session_folder(self.layout.root, subject, session)
        if refused:
            found = '; '.join(f'{Path(r.path).name}: {r.reason}' for r in refused[:5])
        else:
            inside = sorted(os.listdir(folder))
            for datatype in {'anat', 'swi'} & set(inside):
                os.listdir(folder / datatype)  # one that may not be read is told as such
            found = ', '.join(inside) or 'nothing'
        return SessionError(
            f'no usable anatomical scan (found {found})',
            path=folder,
            remedy='Provide a 3D T1w, T2w, FLAIR, PDw, T2starw or swi image in anat/',
        )

    def _judge(self, findings: Sequence[Finding]) -> None:
        """Apply ``--missing-metadata`` to what is absent or implausible."""
        faults = [item for item in findings if _is_fault(item)]
        if faults and self.missing_metadata == 'error':
            first = faults[0]
            more = f' (and {len(faults) - 1} more)' if len(faults) > 1 else ''
            raise ScanError(
                f'{first.problem}{more}',
                path=Path(self.layout.root) / first.path,
                field=first.field,
                remedy='Mend the metadata, or run with --missing-metadata warn',
            )

    def _absent(self, scans: Sequence[Scan]) -> Iterator[Finding]:
        for scan in scans if self.missing_metadata != 'none' else ():
            keys = [BIDS_KEYS[f] for f in _WANTED_METADATA if getattr(scan.acquisition, f) is None]
            path = Path(scan.path).relative_to(self.layout.root).as_posix()
            problem = 'not known from its sidecars'
            if keys:
                yield Finding(path, ', '.join(keys), 'n/a', problem, _LEFT_UNKNOWN)

    def _tasks(self, scans: list[Scan], reference: Scan, unusable) -> Iterator[SynthesisTask]:
        acquired = {scan.contrast: scan for scan in scans}
        for contrast in self.contrasts:
            missing = contrast not in acquired and contrast not in unusable
            if missing or not self.only_missing:
                purpose = 'missing' if missing else 'requested'
                yield self._task(default_target(contrast), purpose, scans, reference)
        for target in self.targets:
            yield self._task(target, 'requested', scans, reference)
        if self.validate and len(scans) > 1:
            about = dict.fromkeys([*self.contrasts, *(target.contrast for target in self.targets)])
            for contrast in about:
                if contrast in acquired:
                    scan = acquired[contrast]
                    target = self._validation_target(scan)
                    # The prompt says what the image is compared with, whatever its grid is.
                    size = scan.acquisition.voxel_size
                    yield self._task(target, 'validate', scans, reference, stated_size=size)

    def _with_donors(self, tasks, subject: str) -> Iterator[SynthesisTask]:
        """Say whose brightness images take, but those whose protocol the user states."""
        stated = {(target.name, target.contrast) for target in self.targets}
        for task in tasks:
            protocol = (task.target.name, task.target.contrast)
            if self.donors is None or (task.purpose == 'requested' and protocol in stated):
                yield task
            else:
                wanted = task.target.acquisition
                yield replace(task, donors=self.donors.find(wanted, subject))

    def _validation_target(self, scan: Scan) -> Target:
        relative, acq = Path(scan.path).name, scan.acquisition
        if not is_protocol(acq):  # times of two protocols are never mixed
            acq = acq.replace(**dict.fromkeys(PROTOCOL_FIELDS))
        target = target_like(acq, relative, name='', keep_voxel_size=False)
        origin = {field: f'the acquired {relative}' for field in target.provenance}
        return replace(target, provenance=origin)

    def _task(self, target, purpose, scans, reference, stated_size=None) -> SynthesisTask:
        source, reason = choose_source(target.contrast, scans, reference)
        resolved = resolve_target(
            target,
            subject=reference.acquisition,
            modal=self._modal(target.contrast),
            source=source.acquisition,
        )
        task = SynthesisTask(resolved, source.path, '', purpose, reason, stated_size=stated_size)
        return replace(task, prompt=render_prompt(task.requested.acquisition))

    def _modal(self, contrast: str) -> Acquisition | None:
        if self.modal is None:
            self.modal = dataset_protocols(self.layout.root, self.reader)
        return self.modal.get(contrast)


def _is_fault(finding: Finding) -> bool:
    bad = finding.action in (TREATED_AS_MISSING, _LEFT_UNKNOWN)
    return bad and finding.severity != 'info'
