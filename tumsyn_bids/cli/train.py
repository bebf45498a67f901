"""``tumsyn train`` and ``tumsyn evaluate``: the two stages of the paper."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from ..errors import EXIT_OK, UsageError
from ..networks.config import ONE_HOT
from ..networks.registry import CONFIGS, TEXT_IMAGE_CONFIGS
from ..networks.store import find_model
from ..training.splits import is_excluded
from .parser import absolute_path, option, whole_number
from .progress import say

_DERIVATIVES = 'derivatives with co-registered contrasts, such as those of tumsyn-bids'
_DATASETS = {'type': absolute_path, 'nargs': '+', 'metavar': 'DATASET'}
_PAIRS = {
    **_DATASETS,
    'help': f'{_DERIVATIVES}; or raw BIDS, whose scans are aligned first, into the folder of the '
    'run',
}


def add_train(commands, command) -> None:
    """Add ``train`` and its stages.

    Parameters
    ----------
    commands : argparse subparsers action
    command : callable
        ``command(commands, name, run, text)`` adds one command and returns its parser.
    """
    stages = _group(commands, 'train', 'train a model, or go on training it', 'STAGE')
    parser = command(stages, 'text-image', _run_text_image, 'stage 1: prompts and images')
    _add_run(parser)
    _add_people(parser)
    _add_exclude(parser)
    parser.add_argument('--config', choices=TEXT_IMAGE_CONFIGS, help='size (default: paper)')
    parser.add_argument('--epochs', type=whole_number(1), help='default: 100')
    option(parser, '--steps-per-epoch', type=whole_number(1), help='default: 139')
    option(parser, '--warm-up', type=whole_number(0), help='epochs (default: 20)')
    parser.add_argument('--batch', type=whole_number(2), help='images per step (default: 27)')
    option(parser, '--learning-rate', type=float, help='at its peak (default: 5e-5)')
    option(parser, '--held-out', type=float, help='part of the people kept to test on (0.1)')
    _add_synthesis(command(stages, 'synthesis', _run_synthesis, 'stage 2: the synthesis network'))
    text = 'list the prompts of real people, for another text encoder to embed'
    parser = command(stages, 'prompts', _run_prompts, text)
    text = f'{_DERIVATIVES}; what a training made of raw BIDS lies in preprocessed/ of its folder'
    parser.add_argument('--pairs', required=True, **_DATASETS, help=text)
    _add_exclude(parser)
    text = "measure what the brightest part of a model's images lacks, so that it is added"
    parser = command(stages, 'tails', _run_tails, text)
    parser.add_argument('model', type=absolute_path, help='model folder, which is changed')
    parser.add_argument('--pairs', required=True, **_PAIRS)
    _add_exclude(parser)


def add_evaluate(commands, command) -> None:
    """Add ``evaluate`` and what it can look at; parameters as those of :func:`add_train`."""
    actions = _group(commands, 'evaluate', 'test a trained model on people kept apart', 'WHAT')
    text = 'find the prompt of an image among 10, and its modality among 7'
    parser = command(actions, 'retrieval', _run_retrieval, text)
    parser.add_argument('model', type=absolute_path, help='model folder of train text-image')
    parser.add_argument('out', type=absolute_path, help='folder for scores, tables, figure')
    _add_people(parser)
    parser.add_argument('--groups', type=whole_number(1), default=20, help='of ten images each')
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of what is drawn')


def _group(commands, name: str, text: str, metavar: str):
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    return parser.add_subparsers(dest='action', required=True, metavar=metavar, help='which')


def _add_people(parser) -> None:
    parser.add_argument('--labelmaps', type=absolute_path, help='folder of head label maps')
    parser.add_argument('--pairs', default=[], **_PAIRS)


def _add_exclude(parser) -> None:
    text = 'people, and files of label maps, that must not be seen'
    parser.add_argument('--exclude', nargs='+', default=(), metavar='NAME', help=text)


def _add_synthesis(parser) -> None:
    _add_run(parser)
    _add_people(parser)
    _add_exclude(parser)
    parser.add_argument('--config', choices=CONFIGS, help='size (default: embedded)')
    parser.add_argument('--steps', type=whole_number(1), help='length of the schedule')
    option(
        parser,
        '--held-out',
        type=float,
        help='part of the people kept to choose the best weights with (0)',
    )
    parser.add_argument(
        '--recipe',
        choices=('embedded', 'tissues', 'correction', 'paper'),
        default='embedded',
        help='of the embedded model; one part of its decoder alone, on top of --from, in minutes; '
        "or the paper's: both directions, any up-sampling, points",
    )
    parser.add_argument('--batch', type=whole_number(1), help="of the paper's recipe (16)")
    parser.add_argument('--points', type=whole_number(1), help="of the paper's recipe (8000)")
    option(parser, '--learning-rate', type=float, help='at its peak (5e-4; paper: 1e-4)')
    option(parser, '--real-share', type=float, help='part of the samples of real people (0.8)')
    parser.add_argument(
        '--from',
        dest='start',
        metavar='MODEL',
        help='begin with the weights of a model: "embedded", a name or a folder',
    )
    option(
        parser,
        '--text-encoder',
        type=lambda text: text if text == ONE_HOT else absolute_path(text),
        metavar='MODEL',
        help='model folder of train text-image, whose text encoder is used as it is; or a file '
        f'of embeddings that another one made; or {ONE_HOT}, labels of modality and scanner',
    )


def _add_run(parser) -> None:
    parser.add_argument('out', type=absolute_path, help='folder; an interrupted run is resumed')
    parser.add_argument('--seed', type=whole_number(0), help='of everything that is drawn')
    option(parser, '--max-minutes', type=float, help='stop, resumably, after this time')
    parser.add_argument(
        '--accelerator', choices=('auto', 'cpu', 'cuda'), default='cpu', help='default: cpu'
    )
    parser.add_argument(
        '--devices', type=whole_number(1), default=1, help='processes per node (default: 1)'
    )
    parser.add_argument('--nodes', type=whole_number(1), default=1, help='default: 1')
    parser.add_argument(
        '--precision',
        choices=('auto', '32-true', 'bf16-mixed', '16-mixed'),
        default='auto',
        help='default: bf16-mixed where the device computes in it, else 32-true',
    )
    parser.add_argument(
        '--accumulate', type=whole_number(1), default=1, help='samples per step and process'
    )
    option(parser, '--save-every', type=float, metavar='S', default=180.0, help='default: 180')
    option(parser, '--log-every', type=whole_number(1), metavar='STEPS', default=50, help='50')
    option(
        parser,
        '--validate-every',
        type=whole_number(1),
        metavar='STEPS',
        default=500,
        help='between looks at the people kept apart (500)',
    )


def _engine_settings(args: argparse.Namespace):
    from ..training.engine import EngineSettings

    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    return EngineSettings(
        accelerator=args.accelerator,
        devices=args.devices,
        nodes=args.nodes,
        precision=args.precision,
        accumulate=args.accumulate,
        save_every_s=args.save_every,
        log_every=args.log_every,
        validate_every=args.validate_every,
    )


def _pairs(args: argparse.Namespace, run: Path) -> list[Path]:
    from .prepare import prepared

    return prepared(args.pairs, run, exclude=getattr(args, 'exclude', ()))


def _excluded(args: argparse.Namespace) -> tuple[str, ...]:
    """Return who must not be seen; a name that is nobody's would be seen unnoticed."""
    labelmaps = getattr(args, 'labelmaps', None)
    files = [] if labelmaps is None else labelmaps.glob('*.nii*')
    names = [path.name for dataset in args.pairs for path in dataset.glob('sub-*')]
    names += [path.name for path in files]
    for name in args.exclude:
        if not any(is_excluded(known, (name,)) for known in names):
            raise UsageError(
                f'{name} is neither a participant nor a label map of these data',
                field='--exclude',
                remedy='Write names in full: sub-01, or the name of a file',
            )
    return tuple(args.exclude)


def _given(args: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _run_text_image(args: argparse.Namespace) -> int:
    from ..training.text_image import TextImageSettings, train_text_image

    names = ('config', 'epochs', 'steps_per_epoch', 'warm_up', 'batch', 'learning_rate')
    path = train_text_image(
        args.out,
        args.labelmaps,
        exclude=_excluded(args),
        settings=TextImageSettings(**_given(args, *names, 'held_out', 'seed')),
        engine_settings=_engine_settings(args),
        max_minutes=args.max_minutes,
        pairs=_pairs(args, args.out),
    )
    say(f'{args.prog}: finished: {path}')
    return EXIT_OK


def _recipe(args: argparse.Namespace):
    from ..training.correcting import CorrectionRecipe
    from ..training.paper import PaperRecipe
    from ..training.reading import TissueRecipe

    if args.recipe == 'paper':
        return PaperRecipe(**_given(args, 'batch', 'points', 'learning_rate'))
    parts = {'tissues': TissueRecipe, 'correction': CorrectionRecipe}
    if args.recipe in parts and args.start is None:
        raise UsageError(
            'a part of the decoder is trained on what a trained encoder makes',
            field=f'--recipe {args.recipe}',
            remedy='Name a model with --from',
        )
    given = _given(args, 'batch', 'points')
    if given:
        names = ', '.join('--' + name for name in given)
        raise UsageError('goes with --recipe paper', field=names)
    return parts[args.recipe]() if args.recipe in parts else None


def _run_synthesis(args: argparse.Namespace) -> int:
    from ..training.synthesis import TrainingSettings, train_synthesis

    if args.config and args.start:
        raise UsageError(
            'the model to begin with has its own configuration',
            field='--config',
            remedy='Leave out --config or --from',
        )
    names = ('config',) if args.recipe == 'paper' else ('config', 'learning_rate', 'real_share')
    path = train_synthesis(
        args.out,
        labelmaps=args.labelmaps,
        exclude=_excluded(args),
        settings=TrainingSettings(**_given(args, *names, 'steps', 'seed', 'held_out')),
        engine_settings=_engine_settings(args),
        recipe=_recipe(args),
        text_encoder=args.text_encoder,
        start=args.start,
        max_minutes=args.max_minutes,
        pairs=_pairs(args, args.out),
    )
    say(f'{args.prog}: finished: {path}')
    return EXIT_OK


def _run_prompts(args: argparse.Namespace) -> int:
    from ..training.batches import load_people
    from ..training.conditions import prompts_of

    for prompt in prompts_of(load_people(args.pairs, exclude=_excluded(args))):
        say(prompt)
    return EXIT_OK


def _run_tails(args: argparse.Namespace) -> int:
    from ..training.tails import measure_tails

    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    # Before scans are aligned for hours.
    model = find_model(args.model)
    curves = measure_tails(model, _pairs(args, model.parent), exclude=_excluded(args))
    for name, curve in curves.items():
        say(f'{name}: {curve[-1][1]:+.3f} at {curve[-1][0]:.3f}')
    return EXIT_OK


def _run_retrieval(args: argparse.Namespace) -> int:
    from ..training.batches import load_people, pick_scans
    from ..training.retrieval import evaluate_retrieval, write_retrieval
    from ..training.text_image import load_text_image

    model, card = load_text_image(args.model)
    held_out = card['training']['held_out']
    if not held_out:
        raise UsageError(
            'nobody was kept apart in this training',
            path=args.model,
            remedy='Train with --held-out above 0',
        )
    scans = pick_scans(held_out, args.labelmaps, load_people(_pairs(args, args.model.parent)))
    result = evaluate_retrieval(model, scans, groups=args.groups, seed=args.seed)
    write_retrieval(result, args.out)
    say(json.dumps(result.scores(), indent=2))
    return EXIT_OK
