"""The configurations that have a name."""

from __future__ import annotations

from .config import (
    DecoderConfig,
    EncoderConfig,
    FusionConfig,
    SynthesisConfig,
    TextConfig,
    TextImageConfig,
    VisionConfig,
)


def get_config(name: str) -> SynthesisConfig:
    """Return a named configuration.

    ``official`` is the published network (113.6 M parameters), ``paper`` the network as the paper
    describes it where the published code differs, ``embedded`` the small one that comes with this
    package, ``tiny`` the one of the tests.

    Raises
    ------
    KeyError
        If there is no such configuration; the message lists those that exist.
    """
    try:
        maker = _MAKERS[name]
    except KeyError:
        raise KeyError(f'no configuration {name!r}; known: {", ".join(CONFIGS)}') from None
    return maker()


def _official() -> SynthesisConfig:
    return SynthesisConfig(
        name='official',
        overlap=0.5,
        tiling='published',
        intensity='percentile_clip',
        axes='zyx',
    )


def _paper() -> SynthesisConfig:
    return SynthesisConfig(
        name='paper',
        fusion=FusionConfig(heads=8, attention='multihead'),
        decoder=DecoderConfig(
            hidden=(3072, 768, 256),
            coordinates='relative',
            film=True,
            cell=True,
            local_ensemble=True,
        ),
        numeric=True,
        tile=64,
    )


def _embedded() -> SynthesisConfig:
    return SynthesisConfig(
        name='embedded',
        text=TextConfig(width=64, layers=2, heads=4, embed_dim=128),
        encoder=EncoderConfig(
            n_feats=16,
            n_resblocks=1,
            out_dim=32,
            norm='none',
            res_scale=0.5,
            context_widths=(48, 72, 96),
            context_blocks=2,
            conditioned=True,
        ),
        fusion=FusionConfig(heads=4, attention='multihead', mlp=False, pool=4),
        decoder=DecoderConfig(
            hidden=(64, 64),
            coordinates='relative',
            film=True,
            mixing=True,
            tissues=True,
            correction=(192, 192, 192),
        ),
        numeric=True,
        signals=True,
        tile=192,
        physics_gain=1.0,
    )


def _tiny() -> SynthesisConfig:
    return SynthesisConfig(
        name='tiny',
        text=TextConfig(width=16, layers=1, heads=2, embed_dim=16),
        encoder=EncoderConfig(
            n_feats=8,
            n_resblocks=1,
            out_dim=16,
            norm='none',
            context_widths=(8,),
            conditioned=True,
        ),
        fusion=FusionConfig(heads=2, attention='multihead', mlp=False, pool=4),
        decoder=DecoderConfig(
            hidden=(16,),
            coordinates='relative',
            film=True,
            mixing=True,
            tissues=True,
            correction=(16, 16),
        ),
        numeric=True,
        signals=True,
        tile=48,
        input_voxel_size=3.0,
    )


_MAKERS = {'official': _official, 'paper': _paper, 'embedded': _embedded, 'tiny': _tiny}
#: Names that :func:`get_config` knows.
CONFIGS = tuple(_MAKERS)


def get_text_image_config(name: str) -> TextImageConfig:
    """Return a named configuration of stage 1: ``paper`` (ViT-B/16 on 96³) or ``tiny`` (16³).

    Raises
    ------
    KeyError
        If there is no such configuration; the message lists those that exist.
    """
    try:
        return _TEXT_IMAGE[name]
    except KeyError:
        known = ', '.join(TEXT_IMAGE_CONFIGS)
        raise KeyError(f'no configuration {name!r}; known: {known}') from None


_TEXT_IMAGE = {
    'paper': TextImageConfig(),
    'tiny': TextImageConfig(
        TextConfig(width=64, layers=2, heads=4, embed_dim=64),
        VisionConfig(image=16, patch=4, width=96, layers=2, heads=4),
    ),
}
#: Names that :func:`get_text_image_config` knows.
TEXT_IMAGE_CONFIGS = tuple(_TEXT_IMAGE)
