"""The command line of ``tumsyn-bids``: spellings, defaults, and checks that need no file.

Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from .. import resources, settings
from ..acquisition import CONTRASTS
from ..errors import EXIT_USAGE
from ..networks.store import EMBEDDED, find_model
from ..settings import Settings
from .progress import say

PROG = 'tumsyn-bids'
_MEMORY = re.compile(r'(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(?:i?b)?', re.IGNORECASE)
_UNIT_GB = {'k': 1024.0**-2, 'm': 1024.0**-1, 'g': 1.0, 't': 1024.0}
_DEVICE = re.compile(r'auto|cpu|cuda(:\d+)?')
# The rest is left to the operating system, the file cache and this process itself.
_MEMORY_SHARE = 0.9


@dataclass(frozen=True)
class Request:
    """A parsed command line.

    Attributes
    ----------
    analysis_level : {'participant', 'group'}
    settings : Settings
    dry_run : bool
        Print the plan and do nothing.
    """

    analysis_level: str
    settings: Settings
    dry_run: bool = False


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and that knows both spellings of an option."""

    def error(self, message: str):
        """Leave with the exit code of wrong usage."""
        self.exit(EXIT_USAGE, f'{self.prog}: error: {message}. See {self.prog} --help.\n')


def option(parser, *names: str, **kwargs) -> None:
    """Add an option under its names, and unlisted under their spellings with underscores."""
    action = parser.add_argument(*names, **kwargs)
    twins = ['--' + name[2:].replace('-', '_') for name in names if '-' in name[2:]]
    if twins:
        hidden = {**kwargs, 'dest': action.dest, 'help': argparse.SUPPRESS}
        parser.add_argument(*twins, **hidden)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``tumsyn-bids``."""
    parser = OneLineParser(
        prog=PROG,
        allow_abbrev=False,
        description='Synthesize the MRI contrasts that the sessions of a BIDS dataset lack.',
        epilog='Options may be written with underscores too. Exit codes: 0 all sessions '
        'complete; 1 some session failed, the others are complete; 2 the command line or the '
        'input cannot be used, nothing was started; 70 an error of the program itself; '
        '130 interrupted.',
    )
    parser.add_argument('bids_dir', type=absolute_path, help='root of the raw BIDS dataset')
    parser.add_argument('output_dir', type=absolute_path, help='where the derivatives go')
    parser.add_argument(
        'analysis_level',
        choices=('participant', 'group'),
        help='participant: process the sessions; group: merge what participants produced',
    )
    option(parser, '--version', action=_Version, help='show the version and exit')
    _add_selection(parser.add_argument_group('Which data'))
    _add_synthesis(parser.add_argument_group('What to synthesize'))
    _add_processing(parser.add_argument_group('How'))
    _add_performance(parser.add_argument_group('Machine'))
    _add_running(parser.add_argument_group('Running'))
    return parser


def parse(argv=None) -> Request:
    """Turn a command line into a request; leaves with code 2 where it cannot be understood."""
    parser = build_parser()
    args = vars(parser.parse_args(argv))
    request = {name: args.pop(name) for name in ('analysis_level', 'dry_run')}
    args.pop('without_effect')
    args['model'] = _model(args['model'], args.pop('models_dir'))
    args['nprocs'] = args['nprocs'] or resources.available_cpus()
    args['mem_gb'] = args['mem_gb'] or _MEMORY_SHARE * resources.available_memory_gb()
    args['omp_nthreads'] = args['omp_nthreads'] or 0
    if args['omp_nthreads'] > args['nprocs']:
        parser.error(
            f'argument --omp-nthreads: {args["omp_nthreads"]} threads do not fit into '
            f'{args["nprocs"]} processors (--nprocs)'
        )
    if args['contrasts'] is None:
        args['contrasts'] = () if args['targets_file'] or args['like'] else ('missing',)
    for name in ('participant_label', 'session_label', 'contrasts', 'like', 'output_spaces'):
        args[name] = tuple(dict.fromkeys(args[name]))
    if len(args['contrasts']) > 1 and {'missing', 'all'} & set(args['contrasts']):
        parser.error('argument --contrasts: "missing" and "all" stand alone')
    return Request(settings=Settings(**args), **request)


def _add_selection(group) -> None:
    option(
        group,
        '--participant-label',
        nargs='+',
        default=(),
        type=_label('sub-'),
        metavar='LABEL',
        help='only these participants, with or without "sub-"',
    )
    option(
        group,
        '--session-label',
        '--session-id',
        nargs='+',
        default=(),
        type=_label('ses-'),
        metavar='LABEL',
        help='only these sessions, with or without "ses-"',
    )
    option(
        group,
        '--bids-filter-file',
        type=absolute_path,
        metavar='FILE',
        help='JSON that narrows the choice of scans: {"T1w": {"acquisition": "mprage"}}',
    )
    option(
        group,
        '--bids-database-dir',
        type=absolute_path,
        metavar='DIR',
        help='keep the index of the dataset here and reuse it (it is not refreshed)',
    )


def _add_synthesis(group) -> None:
    option(
        group,
        '--contrasts',
        nargs='+',
        type=_contrast,
        metavar='CONTRAST',
        help='"missing": which of T1w, T2w and FLAIR a session lacks; "all": every contrast, '
        f'acquired or not; or some of {", ".join(CONTRASTS)} (default: missing, or none beside '
        '--targets and --like)',
    )
    option(
        group,
        '--targets',
        dest='targets_file',
        type=absolute_path,
        metavar='FILE',
        help='YAML or JSON list of targets: name, suffix, voxel size, imaging parameters',
    )
    option(
        group,
        '--like',
        nargs='+',
        default=(),
        type=absolute_path,
        metavar='SIDECAR',
        help='imitate the protocol of these BIDS sidecars',
    )
    option(
        group,
        '--validate',
        action='store_true',
        help='also synthesize contrasts that were acquired, from another scan, and score them',
    )
    option(
        group,
        '--match-brightness',
        choices=settings.BRIGHTNESSES,
        default='dataset',
        help='make images as bright as the scans of their contrast that other people of the '
        'dataset have, unless --targets or --like state the protocol (default: dataset)',
    )
    option(
        group,
        '--missing-metadata',
        choices=settings.MISSING_METADATA_POLICIES,
        default='warn',
        help='what to do about missing or implausible metadata (default: warn)',
    )


def _add_processing(group) -> None:
    option(
        group,
        '--model',
        '--model-file',
        default='embedded',
        metavar='NAME|PATH',
        help='"embedded" (default), the path of another model, or its name in the store '
        '(tumsyn models list)',
    )
    option(
        group,
        '--models-dir',
        type=absolute_path,
        metavar='DIR',
        help="the store (default: $TUMSYN_HOME/models, else in the user's data folder)",
    )
    option(
        group,
        '--device',
        default='auto',
        type=device_name,
        metavar='auto|cpu|cuda[:N]',
        help='where the network runs; a CUDA device asked for must be there',
    )
    option(
        group,
        '--skull-strip',
        choices=settings.SKULL_STRIP_METHODS,
        default='ants',
        help='brain extraction; "none" for scans without skull (default: ants)',
    )
    option(
        group,
        '--coreg',
        choices=settings.COREGISTRATIONS,
        default='rigid',
        help="how a session's scans are aligned with its reference (default: rigid)",
    )
    option(
        group,
        '--tissues',
        action='store_true',
        help="segment grey matter, white matter and CSF on each session's T1w",
    )
    option(
        group,
        '--output-spaces',
        nargs='+',
        default=(),
        metavar='SPACE',
        help='also write images in these standard spaces of TemplateFlow, as in '
        'MNI152NLin2009cAsym:res-2 (this one comes with the program; without res- each image '
        'keeps its voxel size)',
    )
    option(
        group,
        '--morphometry',
        choices=settings.MORPHOMETRY_LEVELS,
        default='none',
        help="volumes of brain structures from each session's T1w; full: also thickness of the "
        'cortex and surfaces, which takes much longer (default: none)',
    )
    option(
        group,
        '--fs-subjects-dir',
        type=absolute_path,
        metavar='DIR',
        help='with --morphometry: also write a FreeSurfer subjects directory there',
    )
    option(
        group,
        '--fs-recon',
        action='store_true',
        help='with --fs-subjects-dir: run FreeSurfer, if it is installed, on the T1w (recon-all, '
        'recon-all-clinical.sh or mri_synthseg, whichever is found first) and take its measures',
    )
    option(
        group,
        '--random-seed',
        type=whole_number(0),
        default=2025,
        metavar='N',
        help='seed of everything that draws random numbers (default: 2025)',
    )


def _add_performance(group) -> None:
    option(
        group,
        '--nprocs',
        '--nthreads',
        '--n-cpus',
        '--ncpus',
        type=whole_number(1),
        metavar='N',
        help='processors to use (default: all that this job was given)',
    )
    option(
        group,
        '--omp-nthreads',
        type=whole_number(1),
        metavar='N',
        help='threads of one session; sessions run side by side as far as --nprocs and --mem '
        'allow (default: chosen by the number of sessions)',
    )
    option(
        group,
        '--mem',
        '--mem-gb',
        dest='mem_gb',
        type=_memory('g'),
        metavar='SIZE',
        help='memory to use: 16G, 16000M; a bare number is GB (default: 90%% of what this job '
        'was given)',
    )
    option(
        group,
        '--mem-mb',
        dest='mem_gb',
        type=_memory('m'),
        metavar='SIZE',
        help='the same; a bare number is MB',
    )
    option(
        group,
        '--use-plugin',
        type=absolute_path,
        metavar='FILE',
        help='YAML with "plugin" and "plugin_args" of Nipype; all sessions then form one graph',
    )


def _add_running(group) -> None:
    option(
        group,
        '-w',
        '--work-dir',
        type=absolute_path,
        default=Path('work').absolute(),
        metavar='DIR',
        help='scratch folder (default: ./work)',
    )
    option(
        group,
        '--clean-workdir',
        choices=settings.CLEAN_WORKDIR_POLICIES,
        default='never',
        help="remove a session's scratch files once it is complete (default: never)",
    )
    option(
        group,
        '--dry-run',
        action='store_true',
        help='print the plan (input, prompt, output and why) and write nothing',
    )
    option(
        group, '--stop-on-first-crash', action='store_true', help='start nothing after a failure'
    )
    option(
        group, '--write-graph', action='store_true', help='save the graph of each workflow (.dot)'
    )
    option(
        group,
        '--notrack',
        '--skip-bids-validation',
        dest='without_effect',
        action='store_true',
        help='accepted, without effect: nothing is tracked, and no external validator is run',
    )
    option(
        group,
        '-v',
        '--verbose',
        action='count',
        default=0,
        help='show the warnings of each session; twice: more in the logs as well',
    )


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=kwargs.get('help'))

    def __call__(self, parser, namespace, values, option_string=None):
        from .. import __version__

        say(f'{parser.prog} {__version__}')
        parser.exit()


def absolute_path(text: str) -> Path:
    """Make a path independent of the folder that a step runs in."""
    return Path(text).expanduser().absolute()


def _model(model: str, store: Path | None) -> str:
    """Keep the name of the embedded model; anything else becomes a path."""
    return model if model == EMBEDDED else str(find_model(model, store))


def _label(prefix: str):
    def label(text: str) -> str:
        stripped = text.removeprefix(prefix)
        if not re.fullmatch(r'[0-9A-Za-z+]+', stripped):
            raise argparse.ArgumentTypeError(f'{text!r} is not a BIDS label')
        return stripped

    return label


def _contrast(text: str) -> str:
    known = {name.lower(): name for name in ('missing', 'all', *CONTRASTS)}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(
            f'unknown contrast {text!r} (known: {", ".join(CONTRASTS)}, missing, all)'
        )
    return known[text.lower()]


def device_name(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f'{text!r} is none of auto, cpu, cuda, cuda:N')
    return text


def whole_number(least: int):
    def whole(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from {least} up')
        return value

    return whole


def _memory(default_unit: str):
    def memory(text: str) -> float:
        match = _MEMORY.fullmatch(text.strip())
        value = float(match[1]) * _UNIT_GB[(match[2] or default_unit).lower()] if match else 0
        if value <= 0:
            raise argparse.ArgumentTypeError(f'{text!r} is not an amount of memory such as 16G')
        return value

    return memory
