"""``tumsyn models``: list, describe, verify, import and fetch models."""

from __future__ import annotations

import argparse
import json
import os

from ..errors import EXIT_OK
from ..networks.store import EMBEDDED, find_model, models_dir, stored_models
from .parser import absolute_path, option, whole_number
from .progress import say


def add_models(commands, command) -> None:
    """Add ``models`` and what it can do.

    Parameters
    ----------
    commands : argparse subparsers action
    command : callable
        ``command(commands, name, run, text)`` adds one command and returns its parser.
    """
    models = commands.add_parser(
        'models', help='the models of this machine', description='The models of this machine.'
    )
    actions = models.add_subparsers(
        dest='action', required=True, metavar='ACTION', help='what to do with them'
    )
    add_models_dir(command(actions, 'list', _list, 'list the models that --model knows by name'))
    for name, run, text in (
        ('info', _info, 'what a model is, and what is known of its origin'),
        ('verify', _verify, 'load a model and compare it with its checksum'),
    ):
        parser = command(actions, name, run, text)
        parser.add_argument(
            'model', nargs='?', default=EMBEDDED, metavar='NAME|PATH', help='default: embedded'
        )
        add_models_dir(parser)
    _add_import(command(actions, 'import', _import, 'add the published weights to the store'))
    _add_embed(command(actions, 'embed', _embed, 'give a model embeddings of further prompts'))
    _add_fetch(command(actions, 'fetch', _fetch, 'download the published weights'))


def add_models_dir(parser) -> None:
    """Add ``--models-dir``, which goes with every ``--model``."""
    option(
        parser,
        '--models-dir',
        type=absolute_path,
        metavar='DIR',
        help='where models are looked up by name (default: $TUMSYN_HOME/models, else '
        "tumsyn/models in the user's data folder)",
    )


def _add_import(parser) -> None:
    parser.add_argument('name', help='of the new model')
    parser.add_argument(
        '--synthesis', type=absolute_path, required=True, help='published checkpoint.pt'
    )
    parser.add_argument(
        '--text-encoder', type=absolute_path, required=True, help='published checkpoint_CLIP.pt'
    )
    parser.add_argument('--licence', help='of the weights, to be noted down with them')
    option(
        parser,
        '--text-heads',
        type=whole_number(1),
        metavar='N',
        help='attention heads of the text transformer (default: one per 64 channels)',
    )
    add_models_dir(parser)


def _add_embed(parser) -> None:
    parser.add_argument('name', help='of the new model')
    parser.add_argument('--model', required=True, metavar='NAME|PATH', help='trained with a table')
    parser.add_argument(
        '--embeddings', type=absolute_path, required=True, help='of the same text encoder'
    )
    add_models_dir(parser)


def _add_fetch(parser) -> None:
    parser.add_argument(
        '--to', type=absolute_path, metavar='DIR', help='default: downloads beside the store'
    )
    parser.add_argument(
        '--site',
        default=os.environ.get('TUMSYN_ZENODO'),
        metavar='URL',
        help='a mirror of Zenodo (default: $TUMSYN_ZENODO, else Zenodo itself)',
    )
    add_models_dir(parser)


def _list(args: argparse.Namespace) -> int:
    store = models_dir(args.models_dir)
    for name in [EMBEDDED, *stored_models(store)]:
        say(f'{name}\t{find_model(name, store)}')
    return EXIT_OK


def _info(args: argparse.Namespace) -> int:
    from ..networks.model import load_model

    model = load_model(find_model(args.model, args.models_dir))
    about = {
        'name': model.name,
        'version': model.version,
        'sha256': model.sha256,
        'parameters': sum(parameter.numel() for parameter in model.network.parameters()),
        **model.card,
    }
    say(json.dumps(about, indent=2, default=str))
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from ..networks.importing import verify_model

    folder = find_model(args.model, args.models_dir)
    say(f'{folder}: {verify_model(folder)}')
    return EXIT_OK


def _import(args: argparse.Namespace) -> int:
    from ..networks.importing import import_published

    folder = import_published(
        args.name,
        args.synthesis,
        args.text_encoder,
        models_dir(args.models_dir),
        licence=args.licence,
        text_heads=args.text_heads,
    )
    say(f'{args.prog}: finished: {folder}')
    return EXIT_OK


def _embed(args: argparse.Namespace) -> int:
    from ..networks.importing import add_embeddings

    store = models_dir(args.models_dir)
    folder = add_embeddings(args.name, find_model(args.model, store), args.embeddings, store)
    say(f'{args.prog}: finished: {folder}')
    return EXIT_OK


def _fetch(args: argparse.Namespace) -> int:
    from ..networks import zenodo

    folder = args.to or models_dir(args.models_dir).parent / 'downloads' / zenodo.RECORD
    site = args.site or zenodo.SITE
    record = zenodo.read_record(folder, site=site)
    say(f'licence of the record: {record.licence or "none stated"}')
    zenodo.fetch_files(record.files, folder, site=site, say=say)
    say(f'{args.prog}: finished: {folder}')
    say(
        f'next: tumsyn models import official --synthesis {folder / "checkpoint.pt"} '
        f'--text-encoder {folder / "checkpoint_CLIP.pt"} --licence {record.licence or "unknown"}'
    )
    return EXIT_OK
