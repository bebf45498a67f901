"""Sizes and options of the networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

#: Tissues of the brain whose signal a prompt can carry.
N_SIGNALS = 12
#: Which of them is fluid.
FLUID = 2
#: Named in the place of a text encoder: labels of modality and scanner.
ONE_HOT = 'one-hot'


@dataclass(frozen=True)
class TextConfig:
    """The text transformer (CLIP's, paper section "Text encoder").

    Attributes
    ----------
    width, layers, heads : int
    embed_dim : int
        Size of the pooled, projected embedding.
    context_length : int
        Most tokens of a prompt, start and end marks included.
    vocabulary : tuple of int or None
        Token ids that have an embedding of their own; all others share one. ``None`` keeps all
        49,408 of CLIP.
    reader : {'transformer', 'labels', 'table'}
        What stands in the place of the text transformer: nothing; one-hot labels of modality and
        scanner; or embeddings that another text encoder made. Of the last two, ``embed_dim`` is
        all that counts of the numbers above.
    scanners : tuple of str
        ``3.0 Siemens``; those that have a label, with ``labels``.
    prompts : tuple of str
        Those that have an embedding, with ``table``.
    """

    width: int = 512
    layers: int = 8
    heads: int = 8
    embed_dim: int = 768
    context_length: int = 90
    vocabulary: tuple[int, ...] | None = None
    reader: str = 'transformer'
    scanners: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderConfig:
    """The residual image encoder, which never reduces the resolution of its output.

    Attributes
    ----------
    n_feats, n_resblocks, out_dim : int
    norm : {'batch', 'none'}
        Normalisation inside the residual blocks; the published network has batch norm.
    res_scale : float
        Factor on the residual branch.
    context_widths : tuple of int
        Channels of a strided side branch, one halving per entry, which widens the receptive
        field at little cost. Empty in the published network.
    context_blocks : int
        Residual blocks per level of the side branch.
    conditioned : bool
        Whether the encoder is told what the source is, by a prompt of its own. The published
        network has to find out from the image.
    """

    n_feats: int = 256
    n_resblocks: int = 24
    out_dim: int = 768
    norm: str = 'batch'
    res_scale: float = 0.1
    context_widths: tuple[int, ...] = ()
    context_blocks: int = 2
    conditioned: bool = False


@dataclass(frozen=True)
class FusionConfig:
    """How the prompt meets the image.

    Attributes
    ----------
    heads : int
    attention : {'released', 'multihead'}
        ``released``: cosine logits and the key/value layout of the published code, which mixes
        voxels and channels. ``multihead``: the paper's text, scaled dot products with the text
        as query and the image as keys and values.
    mlp : bool
        Whether a gated depth-wise block and two layer norms follow the gate.
    pool : int
        Averaging of the image tokens before the attention (1: every voxel).
    """

    heads: int = 8
    attention: str = 'released'
    mlp: bool = True
    pool: int = 1


@dataclass(frozen=True)
class DecoderConfig:
    """The implicit decoder from a feature and a coordinate to an intensity.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    coordinates : {'absolute', 'relative'}
        ``absolute``: position inside the patch in [-1, 1], as the published code. ``relative``:
        offset to the nearest feature voxel, in voxels (LIIF, Chen et al. 2021).
    film : bool
        Whether the prompt scales and shifts every hidden layer.
    cell : bool
        Whether the decoder is told the size of the voxel it answers for (LIIF's cell decoding).
    local_ensemble : bool
        Whether the eight feature voxels around a point each give an answer, weighted by the
        volume opposite to them, in the place of one answer from interpolated features.
    mixing : bool
        Whether the answer is a mixture of the tissue signals that the sequence equations give
        for the prompt, with shares read from the features, plus what the layers add to it.
        Needs ``SynthesisConfig.signals``.
    tissues : bool
        Whether a part of its own reads the tissue of each point from the features and from where
        in the brain it lies (:mod:`tumsyn_bids.place`). What a prompt changes against the default
        protocol is then mixed with these shares; what is mixed of the default protocol itself,
        with the others, which need not be tissues to make a good image. Needs ``mixing``.
    correction : tuple of int
        Widths of the hidden layers of what is told the place too and adds to the answer; no such
        part if empty.
    """

    hidden: tuple[int, ...] = (3072, 3072, 768, 256)
    coordinates: str = 'absolute'
    film: bool = False
    cell: bool = False
    local_ensemble: bool = False
    mixing: bool = False
    tissues: bool = False
    correction: tuple[int, ...] = ()

    def __post_init__(self):
        if self.tissues and not self.mixing:
            raise ValueError('tissues needs a decoder that mixes their signals: mixing')

    @property
    def tells_place(self) -> bool:
        """Whether the decoder is told where in the brain a point lies."""
        return self.tissues or bool(self.correction)


@dataclass(frozen=True)
class SynthesisConfig:
    """All that is needed to build a synthesis network and to feed it.

    Attributes
    ----------
    numeric : bool
        Whether the numbers of the prompt are embedded beside its text.
    signals : bool
        Whether the embedding of a prompt ends with the signals of the brain's tissues under its
        acquisition (:func:`tumsyn_bids.physics.expected.expected_signals`).
    tile : int
        Edge of the cubes, in input voxels, in which a volume is processed.
    overlap : float
        Least overlap of neighbouring tiles as a part of their edge.
    tiling : {'even', 'published'}
        ``even``: evenly spaced tiles that fade into each other. ``published``: steps of
        ``tile * (1 - overlap)`` and a last tile at the end, plain means, and never a tile
        smaller than ``tile``, on whose size the released attention depends.
    intensity : {'brain', 'percentile_clip'}
        How a source is scaled. ``brain``: the brain's 98th percentile is 1. ``percentile_clip``:
        the 0.01th and 99.9th percentile of the whole brain-extracted volume are 0 and 1.
    axes : {'xyz', 'zyx'}
        Order of the axes in which the network sees a volume stored right, anterior, superior.
    input_voxel_size : float
        Spacing in mm of the grid on which a source enters the encoder.
    physics_gain : float
        0: the network reads a prompt as it is. Above 0: it reads that of the contrast's default
        protocol, and the mixture of its decoder moves from the signals of that protocol to those
        of the prompt, by so many times their difference, which makes up for shares that are less
        certain than tissues are; in training by the difference itself. Needs ``decoder.mixing``.
    """

    name: str
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    numeric: bool = False
    signals: bool = False
    tile: int = 60
    overlap: float = 0.25
    input_voxel_size: float = 1.0
    tiling: str = 'even'
    intensity: str = 'brain'
    axes: str = 'xyz'
    physics_gain: float = 0.0

    def __post_init__(self):
        if self.physics_gain and not self.decoder.mixing:
            raise ValueError('physics_gain needs a decoder that mixes the signals of tissues')

    @property
    def prompt_dim(self) -> int:
        """Size of the embedding of a prompt."""
        return self.text.embed_dim + (N_SIGNALS if self.signals else 0)

    def to_dict(self) -> dict:
        """Return a JSON-serialisable mapping."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> SynthesisConfig:
        """Rebuild a configuration from :meth:`to_dict`.

        Raises
        ------
        TypeError
            If a key is unknown.
        """
        values = dict(values)
        for key, part in (
            ('text', TextConfig),
            ('encoder', EncoderConfig),
            ('fusion', FusionConfig),
            ('decoder', DecoderConfig),
        ):
            values[key] = part(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in values[key].items()}
            )
        return cls(**values)


@dataclass(frozen=True)
class VisionConfig:
    """The 3D vision transformer; the defaults are the paper's ViT-B/16.

    Attributes
    ----------
    image, patch : int
        Edge of the input and of its patches, in voxels of the halved volume.
    width, layers, heads : int
    """

    image: int = 96
    patch: int = 16
    width: int = 768
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class TextImageConfig:
    """Both encoders of stage 1.

    Attributes
    ----------
    temperature : float
        Divides the cosines; constant, as in the paper.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    temperature: float = 0.07

    def to_dict(self) -> dict:
        """Return a JSON-serialisable mapping."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> TextImageConfig:
        """Rebuild a configuration from :meth:`to_dict`."""
        text = {k: tuple(v) if isinstance(v, list) else v for k, v in values['text'].items()}
        return cls(TextConfig(**text), VisionConfig(**values['vision']), values['temperature'])
