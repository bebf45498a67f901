"""Byte-pair tokens of CLIP, the vocabulary in which the paper's text encoder reads prompts.

The merges (Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021) are package data; nothing but the standard library is needed for ASCII
text, and prompts are ASCII.
"""

from __future__ import annotations

import gzip
import html
import re
from functools import lru_cache
from importlib import resources
from itertools import pairwise

from ..errors import UsageError

CONTEXT_LENGTH = 90
VOCABULARY_SIZE = 49408
START = '<|startoftext|>'
END = '<|endoftext|>'
PAD_ID = 0

_MERGES_FILE = 'clip_bpe_48894.txt.gz'
_WORD_END = '</w>'
# Every digit is a word of its own. ``[^\W\d_]`` stands for "any letter": it differs from the
# published ``\p{L}`` only for numerals that are not decimal digits (``²``, ``½``).
_WORDS = re.compile(
    rf"{re.escape(START)}|{re.escape(END)}|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+"
)


class Tokenizer:
    """CLIP's byte-pair encoding: text to integer tokens.

    Use :func:`get_tokenizer`, which loads the vocabulary once.

    Attributes
    ----------
    ids : dict of str to int
        Token number of each piece; words end in ``</w>``.
    """

    def __init__(self, merges: list[tuple[str, str]]):
        letters = _byte_letters()
        self._letters = letters
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        pieces = [*letters.values()]
        pieces += [letter + _WORD_END for letter in pieces]
        pieces += [''.join(pair) for pair in merges]
        pieces += [START, END]
        self.ids = {piece: number for number, piece in enumerate(pieces)}
        self._known = {START: [self.ids[START]], END: [self.ids[END]]}

    def encode(self, text: str, context_length: int | None = CONTEXT_LENGTH) -> list[int]:
        """Return the tokens of a text between the start and the end token, not padded.

        Parameters
        ----------
        text : str
        context_length : int or None
            The longest sequence that the text encoder takes; ``None`` for no limit.

        Returns
        -------
        list of int
            Each in ``[0, 49408)``.

        Raises
        ------
        UsageError
            The text has more tokens than ``context_length``. It is never cut.
        """
        ids = [self.ids[START]]
        for word in _WORDS.findall(_clean(text)):
            ids.extend(self._word(word))
        ids.append(self.ids[END])
        if context_length is not None and len(ids) > context_length:
            raise UsageError(
                f'the prompt has {len(ids)} tokens, the text encoder takes {context_length}: '
                f'"{text}"',
                field='prompt',
                remedy='Write its numbers with fewer decimals; each digit is a token',
            )
        return ids

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            self._known[word] = [self.ids[piece] for piece in self._pieces(word)]
        return self._known[word]

    def _pieces(self, word: str) -> list[str]:
        pieces = [self._letters[byte] for byte in word.encode('utf-8')]
        pieces[-1] += _WORD_END
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            pieces = _merge(pieces, best)
        return pieces


@lru_cache(maxsize=1)
def get_tokenizer() -> Tokenizer:
    """Return the tokenizer, loaded once per process."""
    packed = resources.files('tumsyn_bids').joinpath('data', _MERGES_FILE).read_bytes()
    lines = gzip.decompress(packed).decode('utf-8').splitlines()[1:]
    return Tokenizer([tuple(line.split(' ')) for line in lines])


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of a pair, from left to right."""
    merged = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            # The joined piece is longer than either part, so it cannot match the pair again.
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _clean(text: str) -> str:
    if not text.isascii():
        import ftfy  # mends wrongly decoded text, as the published tokenizer does

        text = ftfy.fix_text(text)
    return html.unescape(html.unescape(text)).lower()


def _byte_letters() -> dict[int, str]:
    """Give every byte a printable letter, in the order in which the vocabulary numbers them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters.update({byte: chr(0x100 + n) for n, byte in enumerate(others)})
    return letters
