"""Can stage 1 tell which prompt and which modality an image has? (paper, Suppl. Fig. 1)"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..acquisition import CONTRASTS
from ..errors import UsageError
from ..networks.vision import TextImageModel
from ..prompt import render_prompt
from ..synthesis.conditioning import prompt_tensors
from .batches import Scans
from .text_image import only_contrast

#: Prompts among which one is to be found, if the people have images of as many classes.
CANDIDATES = 10


@dataclass(frozen=True)
class Retrieval:
    """How often the right answer was found.

    Attributes
    ----------
    probabilities : ndarray, shape (N, C)
        Of each candidate prompt for each image; ten, or as many as there are classes.
    own : ndarray of int, shape (N,)
        The right candidate.
    modality_probabilities : ndarray, shape (N, 7)
    modality : ndarray of int, shape (N,)
    """

    probabilities: np.ndarray
    own: np.ndarray
    modality_probabilities: np.ndarray
    modality: np.ndarray

    def scores(self) -> dict[str, float]:
        """Return top-1 and top-5 of both tasks."""
        tasks = {
            'prompt': (self.probabilities, self.own),
            'modality': (self.modality_probabilities, self.modality),
        }
        return {f'{name}_top{k}': top_k(*task, k) for name, task in tasks.items() for k in (1, 5)}


def top_k(probabilities: np.ndarray, own: np.ndarray, k: int) -> float:
    """Return how often the right candidate is among the ``k`` likeliest."""
    right = np.take_along_axis(probabilities, own[:, None], axis=1)
    return float(((probabilities > right).sum(axis=1) < k).mean())


@torch.inference_mode()
def evaluate_retrieval(
    model: TextImageModel, scans: Scans, *, groups: int = 20, seed: int = 0
) -> Retrieval:
    """Look for the prompt of each image among ten, and for its modality among seven.

    Of people with fewer protocols than ten, the prompt is sought among as many as they have.

    Parameters
    ----------
    model : TextImageModel
    scans : Scans
        Of people that were not trained on.
    groups : int
        Times ten images are drawn with their prompts; each is sought among the prompts of its ten.
    seed : int

    Raises
    ------
    UsageError
        If all images are of one protocol.

    Notes
    -----
    A modality is asked for by a prompt in which everything but the contrast and the voxel size is
    unknown.
    """
    candidates = min(CANDIDATES, len(scans.classes))
    if candidates < 2:
        raise UsageError(
            'the images of the people held out are all of one protocol',
            remedy='Keep more people apart when training (--held-out)',
        )
    edge, text = model.config.vision.image, model.config.text
    names = list(CONTRASTS)
    bare, _ = prompt_tensors([render_prompt(only_contrast(name)) for name in names], text)
    texts, owns, kinds, modalities = [], [], [], []
    for group in range(groups):
        rng = np.random.default_rng([seed, 7, group])
        images, shown = scans.draw_batch(rng, edge, candidates)
        ids, _ = prompt_tensors([render_prompt(item) for item in shown], text)
        texts.append(model(images, ids).softmax(dim=-1).numpy())
        owns.append(np.arange(candidates))
        kinds.append(model(images, bare).softmax(dim=-1).numpy())
        modalities.append([names.index(item.contrast) for item in shown])
    return Retrieval(*(np.concatenate(part) for part in (texts, owns, kinds, modalities)))


def write_retrieval(result: Retrieval, out_dir: str | Path) -> list[Path]:
    """Write ``scores.json``, a table of probabilities per task and a figure.

    Parameters
    ----------
    result : Retrieval
    out_dir : path-like
        Made if it does not exist.

    Returns
    -------
    list of Path
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / 'scores.json', out_dir / 'retrieval.png']
    paths[0].write_text(json.dumps(result.scores(), indent=2) + '\n')
    candidates = result.probabilities.shape[1]
    tables = {
        'prompts': (result.probabilities, result.own, [str(i) for i in range(candidates)]),
        'modalities': (result.modality_probabilities, result.modality, list(CONTRASTS)),
    }
    for name, (probabilities, own, columns) in tables.items():
        paths.append(out_dir / f'{name}.csv')
        with paths[-1].open('w', newline='') as stream:
            writer = csv.writer(stream)
            writer.writerow(['image', 'truth', *columns])
            for index, (row, truth) in enumerate(zip(probabilities, own, strict=True)):
                writer.writerow([index, columns[truth], *(f'{value:.4f}' for value in row)])
    _draw(result, paths[1])
    return paths


def _draw(result: Retrieval, path: Path) -> None:
    from matplotlib.figure import Figure

    names = list(CONTRASTS)
    mean = np.array(
        [
            result.modality_probabilities[result.modality == k].mean(axis=0)
            if (result.modality == k).any()
            else np.zeros(len(names))
            for k in range(len(names))
        ]
    )
    figure = Figure(figsize=(9, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2)
    scores = result.scores()
    left.bar(range(len(scores)), scores.values(), color='#3b6ea5')
    left.set_xticks(range(len(scores)), [key.replace('_', '\n') for key in scores])
    chance = [(k, n) for n in (result.probabilities.shape[1], len(names)) for k in (1, 5)]
    for place, (k, n) in enumerate(chance):
        left.hlines(min(k / n, 1), place - 0.4, place + 0.4, color='black', linestyle='--')
    left.set(ylim=(0, 1), ylabel='found', title='Retrieval (dashed: by chance)')
    picture = right.imshow(mean, vmin=0, vmax=1, cmap='Blues')
    right.set_xticks(range(len(names)), names, rotation=45)
    right.set_yticks(range(len(names)), names)
    right.set(ylabel='image', title='Mean probability of a modality')
    figure.colorbar(picture, ax=right)
    figure.savefig(path, dpi=110)
