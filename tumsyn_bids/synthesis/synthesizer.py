"""From a scan and a prompt to a synthetic image on any grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel as nb
import numpy as np
import torch
from scipy import ndimage

from ..acquisition import Acquisition
from ..errors import ScanError, UsageError
from ..greys import grey_levels
from ..grids import Grid, resample
from ..networks.correction import ScanKinds
from ..networks.hardware import has_bfloat16
from ..networks.model import LoadedModel, load_model
from ..physics.expected import at_echo_time, expected_signals, impossible_timing
from ..place import BrainFrame
from ..prompt import parse_prompt, render_prompt, without_person
from ..protocols import usual_protocol
from .conditioning import prompt_tensors, scanner_label
from .intensity import percentile_clip, scale_source
from .tails import restore_tail
from .tiling import blend_weight, inside, tile_boxes

#: Value of a synthetic voxel as bright as the 98th percentile of the brain.
BRIGHT = 1000.0
_MARGIN_VOXELS = 8
_POINTS_AT_ONCE = 200_000
#: Numbers that one layer of the decoder may hold: half a GiB.
_NUMBERS_AT_ONCE = 2**27
#: Features of a scan up to this size are kept between targets; larger ones are made again.
_KEPT_BYTES = 4 * 2**30
#: Largest mean difference between bfloat16 and float32 on the self-check, relative to the signal.
_HALF_TOLERANCE = 0.02


@dataclass(frozen=True)
class EncodedScan:
    """A source as the encoder sees it; serves any number of targets.

    Attributes
    ----------
    grid : Grid
        The encoder's input grid, cropped around the brain.
    mask : SpatialImage
        The brain mask, on the reference's grid.
    tiles : list of (tuple of slice, Tensor or None)
        Position of each tile in ``grid`` and its features (1, C, D, H, W); ``None`` where the
        features of all tiles would not fit into memory and are made again for each target.
    source : ndarray of float32
        The scaled source on ``grid``.
    text : Tensor, shape (1, text_dim), or None
        The embedded prompt of the source, if the encoder wants to know it.
    frame : BrainFrame or None
        Where the brain lies in ``grid``, if the decoder is told.
    greys : ndarray of float32, shape (len(PERCENTILES),), or None
        How the grey values of ``source`` are distributed, if the decoder corrects by them and has
        learned from acquired scans of this contrast.
    """

    grid: Grid
    mask: nb.spatialimages.SpatialImage
    tiles: list[tuple[tuple[slice, slice, slice], torch.Tensor | None]]
    source: np.ndarray
    text: torch.Tensor | None
    frame: BrainFrame | None
    greys: np.ndarray | None


class _Condition(NamedTuple):
    """What the network reads of a prompt, and what it mixes if not the signals of that.

    Attributes
    ----------
    text : Tensor, shape (1, text_dim)
        The embedded prompt.
    nobodys : Tensor, shape (1, text_dim), or None
        The same without the person, if the decoder corrects.
    signals, echo : Tensor, shape (1, N_SIGNALS), or None
        As the decoder takes them.
    tail : list of (float, float), or None
        What the image lacks where it is brightest, before the protocol changes it
        (:func:`~tumsyn_bids.synthesis.tails.restore_tail`).
    """

    text: torch.Tensor
    nobodys: torch.Tensor | None = None
    signals: torch.Tensor | None = None
    echo: torch.Tensor | None = None
    tail: list[tuple[float, float]] | None = None

    def restored(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image of the default protocol with what it lacks."""
        if self.tail is None:
            return image
        return torch.from_numpy(restore_tail(image.float().cpu().numpy(), self.tail)).to(image)


class Synthesizer:
    """Loads a model once, encodes a scan once and decodes any number of targets from it.

    Parameters
    ----------
    loaded : LoadedModel
    device : torch.device
    precision : {'auto', 'float32', 'bfloat16'}
        ``auto`` takes bfloat16 where the hardware has it and a self-check against float32 on
        random input agrees, float32 otherwise.

    Examples
    --------
    >>> synthesizer = Synthesizer.load()                                   # doctest: +SKIP
    >>> encoded = synthesizer.encode(t1w, mask=brain_mask)                 # doctest: +SKIP
    >>> t2w = synthesizer.decode(encoded, prompt, Grid.of(t1w))            # doctest: +SKIP
    """

    def __init__(self, loaded: LoadedModel, device: torch.device, precision: str = 'auto'):
        self._network = loaded.network.to(device).to(memory_format=torch.channels_last_3d)
        self._card = loaded.card
        self._tails = loaded.card.get('tails', {})
        self.config = loaded.network.config
        self.name, self.version, self.sha256 = loaded.name, loaded.version, loaded.sha256
        self.device = device
        self.half = precision == 'bfloat16' or (precision == 'auto' and self._half_is_safe())

    @classmethod
    def load(
        cls,
        model: str | Path = 'embedded',
        device: str = 'auto',
        precision: str = 'auto',
        *,
        threads: int | None = None,
    ) -> Synthesizer:
        """Load a model.

        Parameters
        ----------
        model : str or path-like
            ``'embedded'`` or a model folder.
        device : str
            ``'auto'`` (a GPU if there is one), ``'cpu'`` or ``'cuda[:N]'``.
        precision : {'auto', 'float32', 'bfloat16'}
        threads : int, optional
            CPU threads of torch in this process.

        Raises
        ------
        ModelError
            If the model cannot be used.
        UsageError
            If a GPU is asked for and there is none.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(load_model(model), find_device(device), precision)

    def in_range(self, acquisition: Acquisition) -> list[str]:
        """Return a warning for each parameter outside what the model was trained on.

        And one where the times make no sequence, for which the equations cannot say anything.
        """
        if acquisition.contrast is None:
            return ['the prompt names no modality that the model knows']
        problem = impossible_timing(acquisition)
        warnings = [problem] if problem else []
        if problem and self.config.physics_gain:
            warnings = [f'{problem}; the image is that of the default protocol']
        if 'ranges' not in self._card:
            return [*warnings, 'what the model was trained on is not recorded']
        ranges = self._card['ranges'].get(acquisition.contrast)
        if ranges is None:
            return [*warnings, f'the model was not trained on {acquisition.contrast} images']
        warnings += self._unlabelled(acquisition)
        for field, (low, high) in ranges.items():
            value = getattr(acquisition, field)
            if value is not None and not 0.95 * low <= value <= 1.05 * high:
                warnings.append(
                    f'{field} {value:g} lies outside the range of the training prompts for '
                    f'{acquisition.contrast} ({low:g} to {high:g})'
                )
        return warnings

    def _unlabelled(self, acquisition: Acquisition) -> list[str]:
        label, known = scanner_label(acquisition), self.config.text.scanners
        if self.config.text.reader != 'labels' or label is None or label in known:
            return []
        return [f'the model has no label for the scanner {label} (it has {", ".join(known)})']

    def encode(
        self,
        img: nb.spatialimages.SpatialImage,
        *,
        mask: nb.spatialimages.SpatialImage,
        world: np.ndarray | None = None,
        acquisition: Acquisition | None = None,
    ) -> EncodedScan:
        """Bring a scan onto the encoder's grid and encode it.

        Parameters
        ----------
        img : SpatialImage
            The bias-corrected source in its native space.
        mask : SpatialImage
            Brain mask in the session's individual space.
        world : ndarray, shape (4, 4), optional
            Maps world coordinates of the individual space to those of ``img`` (RAS+, mm).
        acquisition : Acquisition, optional
            What the source is, for a model whose encoder wants to know; unknown if not given.

        Raises
        ------
        ScanError
            If the source is not one volume of finite values, the mask is empty or flat, or the
            source is constant or nowhere above 0 inside it.
        """
        if len(img.shape) != 3:
            raise ScanError(
                f'the source has {len(img.shape)} dimensions, not 3', remedy='Give one volume'
            )
        grid, n_voxels = self._input_grid(mask)
        inside_brain = resample(mask, grid, order=1, antialias=False) > 0.5
        source = resample(img, grid, world=world, order=1)
        _check_brain(source, inside_brain)
        if self.config.intensity == 'percentile_clip':
            source = percentile_clip(source, inside_brain, n_voxels)
        else:
            source = scale_source(source, inside_brain)
        # The voxels are already on the encoder's grid, so their size says nothing any more.
        text = None
        if self.config.encoder.conditioned:
            shown = (acquisition or Acquisition()).replace(voxel_size=None)
            text = self._embed(render_prompt(shown))
        boxes = tile_boxes(source.shape, self.config.tile, self.config.overlap, self.config.tiling)
        n_features = len(boxes) * source[boxes[0]].size * self.config.encoder.out_dim
        keep = 4 * n_features <= _KEPT_BYTES
        tiles = [(box, self._features(source[box], text) if keep else None) for box in boxes]
        frame = BrainFrame.of(inside_brain) if self.config.decoder.tells_place else None
        corrects = self.config.decoder.correction and self._has_seen(acquisition)
        greys = grey_levels(source, inside_brain) if corrects else None
        return EncodedScan(grid, mask, tiles, source, text, frame, greys)

    def decode(self, encoded: EncodedScan, prompt: str, grid: Grid) -> np.ndarray:
        """Synthesise an image.

        A voxel that is larger than the encoder's is the mean over points inside it, the point
        spread of a scan with such voxels.

        Parameters
        ----------
        encoded : EncodedScan
        prompt : str
        grid : Grid
            Of the image to make, in the individual space.

        Returns
        -------
        ndarray of float32, shape ``grid.shape``
            0 outside the brain; :data:`BRIGHT` at the 98th percentile of the brain.
        """
        mask = resample(encoded.mask, grid, order=1, antialias=True) > 0.5
        voxels = np.argwhere(mask)
        image = np.zeros(grid.shape, dtype=np.float32)
        if len(voxels) == 0:
            return image
        condition = self._condition(prompt)
        to_input = np.linalg.inv(encoded.grid.affine) @ grid.affine
        offsets = _sub_voxels(grid.zooms / encoded.grid.zooms)
        points = (voxels + offsets[:, None]).reshape(-1, 3) @ to_input[:3, :3].T + to_input[:3, 3]
        counts = np.maximum(np.round(grid.zooms / encoded.grid.zooms), 1)
        cell = np.linalg.norm(to_input[:3, :3] / counts, axis=1)
        values = self._values(encoded, points, cell, condition)
        values = values.reshape(len(offsets), -1).mean(axis=0)
        image[mask] = np.maximum(values, 0) * BRIGHT
        return image

    def _has_seen(self, acquisition: Acquisition | None) -> bool:
        """Return whether scans of a contrast were seen as people acquired them, if that is known.

        What is learned of a few real people's scans spoils images from contrasts that were
        simulated alone.
        """
        seen, card = set(), self._card
        while card:
            training = card.get('training')
            # Of published weights, a sentence.
            training = training if isinstance(training, dict) else {}
            seen.update(*training.get('people', {}).values())
            card = training.get('start')
        if not seen or acquisition is None or acquisition.contrast is None:
            return True
        return acquisition.contrast in seen

    def _input_grid(self, mask) -> tuple[Grid, int]:
        """Return the grid around the brain, and how many voxels the whole field of view has."""
        whole = Grid.of(mask).canonical().with_zooms([self.config.input_voxel_size] * 3)
        brain = resample(mask, whole, order=1, antialias=False) > 0.25
        if not brain.any():
            raise ScanError('the brain mask is empty')
        box = ndimage.find_objects(brain.astype(np.uint8))[0]
        first = np.array([part.start - _MARGIN_VOXELS for part in box])
        last = np.array([part.stop + _MARGIN_VOXELS for part in box])
        if self.config.tiling == 'published':
            lacking = np.maximum(self.config.tile - (last - first), 0)
            first -= lacking // 2
            last += lacking - lacking // 2
        return whole.cropped(first, last - first), brain.size

    @torch.inference_mode()
    def _features(self, source: np.ndarray, text: torch.Tensor | None) -> torch.Tensor:
        if self.config.axes == 'zyx':
            source = source.transpose(2, 1, 0)
        tensor = torch.from_numpy(np.ascontiguousarray(source))[None, None].to(self.device)
        tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
        with self._autocast():
            return self._network.synthesis.encoder(tensor, text)

    @torch.inference_mode()
    def _embed(self, prompt: str) -> torch.Tensor:
        ids, numbers = prompt_tensors([prompt], self.config.text)
        return self._network.prompt(ids.to(self.device), numbers.to(self.device))

    def _condition(self, prompt: str) -> _Condition:
        wanted, read, changes = parse_prompt(prompt), prompt, (None, None)
        if self.config.physics_gain and wanted.contrast is not None:
            read = render_prompt(usual_protocol(wanted))
            changes = self._changes(parse_prompt(read), wanted)
        nobodys = self._embed(without_person(read)) if self.config.decoder.correction else None
        return _Condition(
            self._embed(read), nobodys, *changes, tail=self._tails.get(wanted.contrast)
        )

    def _changes(self, usual: Acquisition, wanted: Acquisition) -> tuple[torch.Tensor, ...]:
        """Return what is mixed of ``wanted``, and what of it the echo time has changed."""
        same_echo = at_echo_time(wanted, usual.echo_time)
        there, before, after = map(expected_signals, (usual, same_echo, wanted))
        gain = self.config.physics_gain
        mixed = there + gain * (after - there), gain * (after - before)
        return tuple(torch.from_numpy(values)[None].to(self.device) for values in mixed)

    @torch.inference_mode()
    def _fuse(self, features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            fused = self._network.synthesis.fusion(features, text)
        # Interpolation between the features needs float32; converted once and not per chunk.
        return fused.float()

    @torch.inference_mode()
    def _values(
        self, encoded: EncodedScan, points: np.ndarray, cell, condition: _Condition
    ) -> np.ndarray:
        points = np.clip(points, 0, np.asarray(encoded.grid.shape) - 1)
        total = np.zeros(len(points), dtype=np.float32)
        weight = np.zeros(len(points), dtype=np.float32)
        for box, features in encoded.tiles:
            chosen = np.flatnonzero(inside(points, box))
            if len(chosen) == 0:
                continue
            if features is None:
                features = self._features(encoded.source[box], encoded.text)
            fused = self._fuse(features, condition.text)
            for part in np.array_split(chosen, len(chosen) // self._points_at_once() + 1):
                share = self._share(points[part], box)
                place = None if encoded.frame is None else encoded.frame.places_of(points[part])
                told = (condition, place, encoded.greys)
                values = self._decode_points(fused, points[part], box, cell, *told)
                total[part] += share * values
                weight[part] += share
        return total / weight

    def _points_at_once(self) -> int:
        widest = max(self.config.encoder.out_dim, *self.config.decoder.hidden)
        return min(_POINTS_AT_ONCE, _NUMBERS_AT_ONCE // widest)

    def _share(self, points, box) -> np.ndarray:
        if self.config.tiling == 'published':
            return np.ones(len(points), dtype=np.float32)
        return blend_weight(points, box)

    def _decode_points(
        self, features, points, box, cell, condition: _Condition, place=None, greys=None
    ) -> np.ndarray:
        first = np.array([part.start for part in box])
        size = np.array([part.stop - part.start for part in box])
        coord = ((points - first) * 2 + 1) / size - 1
        if self.config.axes == 'zyx':
            coord, cell = coord[:, ::-1], cell[::-1]
        tensor = torch.from_numpy(coord.astype(np.float32))[None].to(self.device)
        sizes = torch.from_numpy(cell.astype(np.float32)).to(self.device)
        if place is not None:
            place = torch.from_numpy(place)[None].to(self.device)
        kinds = None
        if greys is not None:
            levels = torch.from_numpy(greys)[None].to(self.device)
            kinds = ScanKinds(condition.nobodys, levels)
        told = (condition.text, sizes, condition.signals, place, kinds, condition.echo)
        with self._autocast():
            decode = self._network.synthesis.imnet
            values = decode(features, tensor, *told, restore=condition.restored)[0]
        return values.float().cpu().numpy()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def _half_is_safe(self) -> bool:
        if not has_bfloat16(self.device):
            return False
        generator = np.random.default_rng(0)
        source = ndimage.gaussian_filter(generator.random((24, 24, 24)), 1).astype(np.float32)
        text = self._embed((*self.config.text.prompts, 'Modality: T1w')[0])
        points = generator.uniform(0, 23, (512, 3))
        outcomes = []
        for self.half in (False, True):
            features = self._fuse(self._features(source / source.max(), text), text)
            box = (slice(0, 24),) * 3
            with torch.inference_mode():
                told = (np.ones(3), _Condition(text))
                outcomes.append(self._decode_points(features, points, box, *told))
        full, half = outcomes
        return bool(np.abs(half - full).mean() <= _HALF_TOLERANCE * (np.abs(full).mean() + 1e-6))


def count_devices() -> int:
    """Return the number of CUDA devices that this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_device(device: str) -> torch.device:
    """Return the device that a user asked for.

    Raises
    ------
    UsageError
        If it does not exist on this machine.
    """
    available = torch.cuda.is_available()
    if device == 'auto':
        return torch.device('cuda' if available else 'cpu')
    chosen = torch.device(device)
    if chosen.type == 'cuda' and (
        not available or (chosen.index or 0) >= torch.cuda.device_count()
    ):
        raise UsageError(
            f'{device} was asked for and is not there',
            field='--device',
            remedy='Use --device auto or cpu; in a container, start it with --gpus all or --nv',
        )
    return chosen


def _check_brain(source: np.ndarray, inside: np.ndarray) -> None:
    values = source[inside]
    if not np.isfinite(values).all():
        raise ScanError(
            'the source has voxels inside the mask that are not numbers',
            remedy='Replace them, by 0 for instance',
        )
    if len(values) == 0 or np.ptp(values) == 0:
        raise ScanError(
            'the source holds no brain inside the mask',
            remedy='Look at the mask and the co-registration in the report',
        )
    if values.max() <= 0:
        raise ScanError(
            'the source is nowhere brighter than 0 inside the mask',
            remedy='Check its intensities: magnitude images are wanted',
        )
    if (np.ptp(np.argwhere(inside), axis=0) == 0).any():
        raise ScanError(
            'the brain mask is one voxel thick', remedy='Give a mask of the whole brain'
        )


def _sub_voxels(ratio: np.ndarray) -> np.ndarray:
    """Return the positions inside a voxel to average over, shape (S, 3), in voxels.

    Parameters
    ----------
    ratio : ndarray, shape (3,)
        Voxel size of the target relative to that of the encoder's grid.
    """
    counts = np.maximum(np.round(ratio), 1).astype(int)
    axes = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)
