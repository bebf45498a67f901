"""One synthetic image from one scan, outside of any dataset: ``tumsyn synth``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..acquisition import CONTRASTS, Acquisition
from ..errors import EXIT_OK, UsageError
from ..plan import Target
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
    origins : dict of str to str
        Where each value came from.
    """

    acquisition: Acquisition
    prompt: str
    origins: dict[str, str]


def run_synth(args: argparse.Namespace) -> int:
    """Make the image that the command line asks for."""
    if not args.out.name.endswith('.nii.gz'):
        raise UsageError('does not end in .nii.gz', path=args.out, remedy='Name it so')
    check_writable(args.out.parent, 'the folder of the output')
    check_device(args.device)
    source = read_source(args.image, args.source_contrast)
    wish = make_wish(args, source)
    say(f'prompt: {wish.prompt}')
    path = _make(args, source, wish)
    say(f'{args.prog}: finished: {path}')
    return EXIT_OK


def read_source(image: Path, contrast: str | None) -> Acquisition:
    """Return what name, header and sidecar say about a scan; ``contrast`` overrides them."""
    from ..bids.metadata import MetadataReader

    acquisition, _findings = MetadataReader(image.parent).imaging(image)
    if contrast is not None:
        acquisition = acquisition.replace(contrast=contrast)
    if acquisition.contrast is None:
        raise UsageError(
            'its name does not tell the contrast',
            path=image,
            field='--source-contrast',
            remedy=f'Give one of {", ".join(CONTRASTS)}',
        )
    return acquisition


def make_wish(args: argparse.Namespace, source: Acquisition) -> Wish:
    """Turn the options into an acquisition and a prompt; what is left open gets its default."""
    from ..prompt import parse_prompt, render_prompt
    from ..targets import resolve_target

    if args.prompt is not None:
        wanted = parse_prompt(args.prompt)
        return Wish(wanted, args.prompt, {'prompt': 'requested'})
    given = {name: getattr(args, name) for name in WANTED if getattr(args, name) is not None}
    given['contrast'] = args.contrast
    target = Target('', Acquisition(**given), dict.fromkeys(given, 'requested'))
    person = Acquisition(age=args.age, sex=args.sex)
    target = resolve_target(target, subject=person, modal=None, source=source)
    return Wish(target.acquisition, render_prompt(target.acquisition), target.provenance)


def _make(args: argparse.Namespace, source: Acquisition, wish: Wish) -> Path:
    import nibabel as nb

    from ..anatomy.bias import correct_bias
    from ..anatomy.brain import extract_brain
    from ..anatomy.geometry import sanitize
    from ..bids.derivatives import requested_parameters, save_synthetic
    from ..grids import Grid
    from ..networks.store import find_model
    from ..synthesis.synthesizer import Synthesizer

    synthesizer = Synthesizer.load(find_model(args.model, args.models_dir), device=args.device)
    scan = correct_bias(sanitize(args.image).img)
    if args.mask is None:
        brain = extract_brain(scan, source.contrast, seed=args.random_seed)
        warnings, mask = list(brain.warnings), brain.img
    else:
        warnings, mask = [], sanitize(args.mask).img
    warnings += synthesizer.in_range(wish.acquisition)
    for warning in warnings:
        complain(f'{args.prog}: warning: {warning}')
    grid = Grid.of(scan).canonical().with_zooms(wish.acquisition.voxel_size or (1.0, 1.0, 1.0))
    encoded = synthesizer.encode(scan, mask=mask, acquisition=source)
    data = synthesizer.decode(encoded, wish.prompt, grid)
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
        'Warnings': warnings,
    }
    return save_synthetic(nb.Nifti1Image(data, grid.affine), args.out, sidecar)
