"""One synthetic image from one scan, outside of any dataset: ``tumsyn synth``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..acquisition import BIDS_KEYS, CONTRASTS, Acquisition
from ..errors import EXIT_OK, ScanError, UsageError
from .checks import check_device, check_writable
from .progress import complain, say

#: Options that say what is wanted; named like the fields of an Acquisition.
WANTED = ('field_strength', 'manufacturer', 'repetition_time', 'echo_time', 'inversion_time')
WANTED += ('flip_angle', 'voxel_size')


@dataclass(frozen=True)
class Wish:
    """What is to be made.

    Attributes
    ----------
    acquisition : Acquisition
    prompt : str
    """

    acquisition: Acquisition
    prompt: str


def run_synth(args: argparse.Namespace) -> int:
    """Make the image that the command line asks for."""
    if not args.out.name.endswith('.nii.gz'):
        raise UsageError('does not end in .nii.gz', path=args.out, remedy='Name it so')
    check_writable(args.out.parent, 'the folder of the output')
    _check_not_acquired(args.out)
    check_device(args.device)
    source, findings = read_source(args.image, args.source_contrast)
    wish = make_wish(args, source)
    say(f'prompt: {wish.prompt}')
    path = _make(args, source, wish, [str(finding) for finding in findings])
    say(f'{args.prog}: finished: {path}')
    return EXIT_OK


def _check_not_acquired(out: Path) -> None:
    """Raise a UsageError where a file would be lost that is not of a synthetic image."""
    from ..bids.naming import sidecar_path
    from ..bids.sidecars import read_json_object

    sidecar = sidecar_path(out)
    if not out.exists() and not sidecar.exists():
        return
    try:
        synthetic = read_json_object(sidecar).get('Synthetic') is True
    except ScanError:
        synthetic = False
    if not synthetic:
        raise UsageError(
            'is there already, and nothing says that it is synthetic',
            path=out if out.exists() else sidecar,
            remedy='Choose another name for the output',
        )


def read_source(image: Path, contrast: str | None) -> tuple[Acquisition, list]:
    """Return what name, header and sidecar say about a scan; ``contrast`` overrides them.

    Returns
    -------
    Acquisition
    list of Finding
        What is odd about the sidecar.
    """
    from ..bids.metadata import MetadataReader

    acquisition, findings = MetadataReader(image.parent).imaging(image)
    if contrast is not None:
        acquisition = acquisition.replace(contrast=contrast)
    if acquisition.contrast is None:
        raise UsageError(
            'its name does not tell the contrast',
            path=image,
            field='--source-contrast',
            remedy=f'Give one of {", ".join(CONTRASTS)}',
        )
    return acquisition, findings


def make_wish(args: argparse.Namespace, source: Acquisition) -> Wish:
    """Turn the options into an acquisition and a prompt; what is left open gets its default.

    Raises
    ------
    UsageError
        If a number cannot be meant, or the times make no sequence.
    """
    from ..physics.expected import impossible_timing
    from ..prompt import render_prompt
    from ..targets import resolve_target

    if args.prompt is not None:
        wish = Wish(_read_prompt(args.prompt), args.prompt)
    else:
        person = Acquisition(age=args.age, sex=args.sex)
        _refuse_doubtful(person, '--age', 'Write years')
        target = resolve_target(_asked(args), subject=person, modal=None, source=source)
        wish = Wish(target.acquisition, render_prompt(target.acquisition))
    problem = impossible_timing(wish.acquisition)
    if problem:
        raise UsageError(
            problem,
            field='--prompt' if args.prompt is not None else '--contrast',
            remedy='State all times of the protocol that is wanted',
        )
    return wish


def _asked(args: argparse.Namespace):
    from ..targets import target_of_options

    given = {name: getattr(args, name) for name in WANTED if getattr(args, name) is not None}
    options = {BIDS_KEYS.get(name, name): value for name, value in given.items()}
    return target_of_options({'contrast': args.contrast, **options})


def _read_prompt(prompt: str) -> Acquisition:
    from ..networks.tokenizer import get_tokenizer
    from ..prompt import parse_prompt

    # No model would read a longer one, also none that reads its values alone.
    get_tokenizer().encode(prompt)
    wanted = parse_prompt(prompt)
    _refuse_doubtful(wanted, '--prompt', 'Write times in milliseconds and voxel sizes in mm')
    return wanted


def _refuse_doubtful(acquisition: Acquisition, option: str, remedy: str) -> None:
    from ..targets import doubts

    problems = doubts(acquisition)
    if problems:
        raise UsageError('; '.join(problems), field=option, remedy=remedy)


def _not_understood(synthesizer, prompt: str, wanted: Acquisition) -> list[str]:
    """Return what of a prompt a model that reads its values alone will not heed."""
    from ..prompt import unread

    if not synthesizer.config.physics_gain:
        return []
    if wanted.contrast is None:
        names = ', '.join(contrast.prompt_name for contrast in CONTRASTS.values())
        raise UsageError(
            'names no modality that the model knows',
            field='--prompt',
            remedy=f'Write "Modality: " and one of {names}',
        )
    return [f'the prompt says what the model does not heed: "{part}"' for part in unread(prompt)]


def _make(args: argparse.Namespace, source: Acquisition, wish: Wish, warnings: list[str]) -> Path:
    from ..anatomy.bias import correct_bias
    from ..anatomy.brain import extract_brain
    from ..anatomy.geometry import sanitize
    from ..bids.derivatives import confidence_fields, requested_parameters, save_synthetic
    from ..grids import Grid
    from ..networks.store import find_model
    from ..synthesis.judged import Wanted, make_images
    from ..synthesis.synthesizer import Synthesizer

    synthesizer = Synthesizer.load(find_model(args.model, args.models_dir), device=args.device)
    warnings = warnings + _not_understood(synthesizer, wish.prompt, wish.acquisition)
    scan = correct_bias(sanitize(args.image).img)
    if args.mask is None:
        brain = extract_brain(scan, source.contrast, seed=args.random_seed)
        warnings, mask = [*warnings, *brain.warnings], brain.img
    else:
        mask = sanitize(args.mask).img
    wanted, field_of_view = [Wanted(wish.prompt, wish.acquisition)], Grid.of(scan)
    (made,) = make_images(
        synthesizer, scan, wanted, field_of_view=field_of_view, mask=mask, source=source
    )
    warnings += made.warnings
    for warning in warnings:
        complain(f'{args.prog}: warning: {warning}')
    sidecar = {
        'Description': f'SYNTHETIC {wish.acquisition.contrast} computed from {args.image.name}; '
        'no scanner measured this image',
        'Synthetic': True,
        'SkullStripped': True,
        'Sources': [args.image.absolute().as_uri()],
        'SynthesisModel': {
            'Name': synthesizer.name,
            'Version': synthesizer.version,
            'SHA256': synthesizer.sha256,
            'Prompt': wish.prompt,
        },
        'RequestedParameters': requested_parameters(wish.acquisition),
        'Confidence': confidence_fields(made.confidence),
        'Warnings': warnings,
    }
    return save_synthetic(made.image, args.out, sidecar)
