"""Put what the benchmarks measured into the model card: its JSON file and its page.

Each benchmark writes its figures with ``--json``. This script copies them into ``card.json``
beside the weights and into the tables of ``docs/model.md``, which stand between comments that
name them, so that no figure is typed by hand.

    python benchmarks/model_card.py quality=quality.json pairs=pairs.json voxels=voxels.json \
        fidelity=fidelity.json confidence=confidence.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from confidence import GOOD, TARGETS, rank_correlation, values_of

from tumsyn_bids.networks.store import embedded_model
from tumsyn_bids.synthesis.confidence import THRESHOLDS

PAGE = Path(__file__).parents[1] / 'docs' / 'model.md'
CARD = 'card.json'
_METHODS = {
    'model': 'model',
    'identity': 'identity',
    'histogram': 'histogram match',
    'table': 'table',
    'table*': 'table\\*',
    'table raw': 'table, not scaled again',
    'table* raw': 'table\\*, not scaled again',
}


def main(argv: list[str] | None = None) -> int:
    """Bring the card up to date."""
    options = _parser().parse_args(argv)
    folder = Path(embedded_model())
    path = folder / CARD
    card = json.loads(path.read_text()) if path.exists() else {}
    description = json.loads((folder / 'config.json').read_text())
    if card.get('sha256') != description['sha256']:
        # Figures of other weights are none of these.
        card = {'sha256': description['sha256'], **_about()}
    page = PAGE.read_text()
    for name, file in (item.split('=', 1) for item in options.figures):
        rows = json.loads(Path(file).read_text())
        rows = rows['rows'] if isinstance(rows, dict) else rows
        card.setdefault('figures', {})[name] = [_rounded(row) for row in rows]
        page = _filled(page, name, TABLES[name](rows))
    path.write_text(json.dumps(card, indent=1, allow_nan=False) + '\n')
    PAGE.write_text(page)
    return 0


def _about() -> dict:
    return {
        'licence': 'Apache-2.0',
        'intended_use': 'Research. Contrasts that a session lacks, for analyses that can bear '
        'predicted images. Not for diagnosis.',
        'data': [
            {
                'name': 'Label maps that SynthSeg trains on (Billot et al., 2023)',
                'licence': 'Apache-2.0',
            },
            {
                'name': '3D MR image database of Multiple Sclerosis patients and its longitudinal '
                'part (Lesjak et al., 2017), as redistributed in open_ms_data',
                'licence': 'CC-BY',
            },
        ],
        'page': 'docs/model.md',
    }


def _rounded(row: dict) -> dict:
    """Return figures as JSON can hold them: what is infinite or unknown becomes null."""
    return {
        key: (round(value, 4) if np.isfinite(value) else None)
        if isinstance(value, float)
        else value
        for key, value in row.items()
    }


def _filled(page: str, name: str, table: str) -> str:
    pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end -->)'
    if not re.search(pattern, page, flags=re.DOTALL):
        sys.exit(f'{PAGE}: has no place for the table {name!r}')
    return re.sub(pattern, lambda match: match[1] + table + match[2], page, flags=re.DOTALL)


def quality_table(rows: list[dict]) -> str:
    """Real scans beside what needs no network."""
    head = ('from → to', 'method', 'PSNR whole', 'PSNR brain', 'SSIM whole', 'SSIM brain')
    body = [
        (
            f'{row["source"]} → {row["target"]}',
            _METHODS[row['method']],
            *(f'{row[key]:.1f}' for key in ('psnr_whole', 'psnr_brain')),
            *(f'{row[key]:.3f}' for key in ('ssim_whole', 'ssim_brain')),
        )
        for row in rows
    ]
    return _markdown(head, body)


def gains_table(rows: list[dict]) -> str:
    """Gains over the tables fitted on the answer, with intervals over cubes of the brain."""
    head = ('from → to', 'over', 'PSNR (dB)', 'SSIM whole', 'SSIM brain')
    body = [
        (
            f'{row["source"]} → {row["target"]}',
            _METHODS[row['method']],
            *(
                f'{gain:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})'
                for (gain, low, high), digits in zip(row['gain'].values(), (1, 3, 3), strict=True)
            ),
        )
        for row in rows
        if 'gain' in row
    ]
    return _markdown(head, body)


def pairs_table(rows: list[dict]) -> str:
    """Every pair of contrasts of the phantom: PSNR of the brain, and that of the table."""
    names = list(dict.fromkeys(row['from'] for row in rows))
    found = {(row['from'], row['to']): row for row in rows}
    body = [
        (
            f'**{source}**',
            *(
                f'{found[source, target]["model psnr_brain"]:.1f} / '
                f'{found[source, target]["table* psnr_brain"]:.1f}'
                if (source, target) in found
                else '–'
                for target in names
            ),
        )
        for source in names
    ]
    return _markdown(('from \\ to', *names), body)


def voxels_table(rows: list[dict]) -> str:
    """Voxel sizes and thick slices of the phantom."""
    head = ('from', 'to', 'model', 'linear', 'cubic')
    body = [
        (
            row['from'],
            row['to'],
            *(
                'same grid'
                if np.isinf(row[f'{name} psnr_brain'])
                else f'{row[f"{name} psnr_brain"]:.1f} / {row[f"{name} ssim_whole"]:.3f}'
                for name in ('model', 'linear', 'cubic')
            ),
        )
        for row in rows
    ]
    return _markdown(head, body)


def fidelity_table(rows: list[dict]) -> str:
    """Sweeps of the prompt's parameters."""
    head = ('contrast', 'parameter', 'level', 'change', 'slope', 'right sign')
    body = [
        (
            row['contrast'],
            row['parameter'].replace('_', ' '),
            *(f'{row[key]:.2f}' for key in ('level', 'change', 'slope')),
            row['sign'],
        )
        for row in rows
    ]
    return _markdown(head, body)


def confidence_table(rows: list[dict]) -> str:
    """Rank correlations with the truth, and what the thresholds do."""
    truths = np.array([row['true pearson'] for row in rows])
    good = truths >= GOOD
    head = ('figure', 'all images', *(f'to {name}' for name in TARGETS), 'warn', 'fail')
    body = []
    for name, (warn, fail, sign) in THRESHOLDS.items():
        values = values_of(rows, name)
        parts = [np.array([row['to'] == target for row in rows]) for target in TARGETS]
        flags = [
            f'{word} {limit:g}: {(flagged & ~good).sum()} of {(~good).sum()} bad, '
            f'{(flagged & good).sum()} of {good.sum()} good'
            for word, limit in (('<' if sign > 0 else '>', warn), ('<' if sign > 0 else '>', fail))
            for flagged in [sign * values < sign * limit]
        ]
        ranks = [rank_correlation(values, truths)]
        ranks += [rank_correlation(values[part], truths[part]) for part in parts]
        body.append((name.replace('_', ' '), *(f'{rank:.2f}' for rank in ranks), *flags))
    return _markdown(head, body)


TABLES: dict[str, Callable[[list[dict]], str]] = {
    'quality': quality_table,
    'gains': gains_table,
    'pairs': pairs_table,
    'voxels': voxels_table,
    'fidelity': fidelity_table,
    'confidence': confidence_table,
}


def _markdown(head, body) -> str:
    lines = [head, ['---'] * len(head), *body]
    return ''.join('| ' + ' | '.join(map(str, line)) + ' |\n' for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'figures', nargs='+', metavar='NAME=FILE', help=f'NAME is one of {", ".join(TABLES)}'
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
