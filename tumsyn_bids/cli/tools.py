"""``tumsyn``: single images, models, phantoms and training; one subcommand each."""

from __future__ import annotations

import argparse

from ..acquisition import CONTRASTS
from ..errors import EXIT_OK
from .main import guarded
from .models import add_models, add_models_dir
from .parser import OneLineParser, absolute_path, device_name, option, whole_number
from .progress import say
from .train import add_evaluate, add_train

PROG = 'tumsyn'


def main(argv=None) -> int:
    """Run ``tumsyn`` and return its exit code."""
    return guarded(PROG, _run, argv)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``tumsyn``."""
    parser = OneLineParser(
        prog=PROG,
        allow_abbrev=False,
        description='Tools around the synthesis of MRI contrasts. Whole datasets: tumsyn-bids.',
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    _add_synth(commands)
    _add_phantom(commands)
    add_train(commands, _command)
    add_evaluate(commands, _command)
    add_models(commands, _command)
    return parser


def _run(argv) -> int:
    args = build_parser().parse_args(argv)
    args.prog = ' '.join([PROG, args.command, *filter(None, [getattr(args, 'action', None)])])
    return args.run(args)


def _command(commands, name: str, run, text: str):
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _add_synth(commands) -> None:
    parser = _command(commands, 'synth', _run_synth, 'make one synthetic image from one scan')
    parser.add_argument('image', type=absolute_path, help='acquired scan, NIfTI')
    parser.add_argument('out', type=absolute_path, help='synthetic image, .nii.gz')
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument('--contrast', choices=tuple(CONTRASTS), help='what to make')
    wish.add_argument('--prompt', help='what to make, as the whole sentence that models read')
    option(
        parser,
        '--source-contrast',
        choices=tuple(CONTRASTS),
        help='contrast of the scan (default: from its BIDS suffix)',
    )
    option(
        parser,
        '--voxel-size',
        nargs=3,
        type=float,
        metavar='MM',
        help='along left-right, posterior-anterior, inferior-superior (default: 1 1 1)',
    )
    units = {
        'repetition-time': 's',
        'echo-time': 's',
        'inversion-time': 's',
        'flip-angle': 'degrees',
        'field-strength': 'T',
    }
    for name, unit in units.items():
        text = f'of the image wanted, in {unit} (default: of a usual protocol)'
        option(parser, f'--{name}', type=float, metavar=unit.upper(), help=text)
    parser.add_argument('--manufacturer', help="of the image wanted (default: the scan's)")
    parser.add_argument('--age', type=float, metavar='YEARS', help='of the person')
    parser.add_argument('--sex', choices=('M', 'F'), help='of the person')
    parser.add_argument(
        '--mask', type=absolute_path, help='brain mask in the space of the scan (default: found)'
    )
    parser.add_argument('--model', default='embedded', metavar='NAME|PATH', help='model')
    add_models_dir(parser)
    parser.add_argument('--device', default='auto', type=device_name, help='auto, cpu, cuda[:N]')
    option(parser, '--random-seed', type=whole_number(0), default=2025, help='default: 2025')


def _add_phantom(commands) -> None:
    text = 'write the simulated sample dataset, with its truth'
    parser = _command(commands, 'phantom', _run_phantom, text)
    parser.add_argument('out', type=absolute_path, help='folder for the dataset')
    parser.add_argument(
        '--resolution',
        type=float,
        metavar='MM',
        help='no voxel edge is shorter (default: 1 to 5 mm, as in the protocols)',
    )
    parser.add_argument('--seed', type=whole_number(0), help='of everything that is drawn')
    parser.add_argument('--subjects', nargs='+', metavar='LABEL', help='only these')


def _run_synth(args: argparse.Namespace) -> int:
    from .synth import run_synth

    return run_synth(args)


def _run_phantom(args: argparse.Namespace) -> int:
    from ..simulation.dataset import write_phantom_dataset

    given = {'seed': args.seed} if args.seed is not None else {}
    path = write_phantom_dataset(
        args.out, resolution_mm=args.resolution, subjects=args.subjects, **given
    )
    say(f'{args.prog}: finished: {path}')
    return EXIT_OK
