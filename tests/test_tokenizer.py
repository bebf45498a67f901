"""The tokens are those of the published tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tumsyn_bids.errors import UsageError
from tumsyn_bids.networks.tokenizer import CONTEXT_LENGTH, VOCABULARY_SIZE, get_tokenizer

# Ids of CLIP's tokenizer; START and END are 49406 and 49407.
LITERAL = {
    '': [49406, 49407],
    'T2 star': [49406, 339, 273, 1565, 49407],
    'Modality: T1w': [49406, 6362, 1694, 281, 339, 272, 342, 49407],
    '(0.8, 0.8)': [49406, 263, 271, 269, 279, 267, 271, 269, 279, 264, 49407],
    'Scanner: 3.0 Siemens': [49406, 24185, 281, 274, 269, 271, 30147, 49407],
    '<|startoftext|>abc<|endoftext|>': [49406, 49406, 5334, 49407, 49407],
}


@pytest.fixture
def published(shared_data):
    path = shared_data.parent / 'parity' / 'token_ids.json'
    if not path.exists():
        pytest.skip(f'no published token lists at {path}')
    return json.loads(path.read_text())


@pytest.mark.parametrize('text', LITERAL)
def test_known_ids(text):
    assert get_tokenizer().encode(text) == LITERAL[text]


def test_vocabulary_is_complete():
    ids = get_tokenizer().ids
    assert sorted(ids.values()) == list(range(VOCABULARY_SIZE))


def test_blanks_and_case_do_not_matter():
    encode = get_tokenizer().encode
    assert encode('age: 12;   GENDER: m;\n') == encode('Age: 12; Gender: M;')


def test_each_digit_is_a_token():
    assert len(get_tokenizer().encode('8178')) == 2 + 4


def test_same_ids_as_published(published):
    encode = get_tokenizer().encode
    wrong = [
        item['prompt']
        for item in published['items']
        if encode(item['prompt'], None) != item['ids']
    ]
    assert wrong == []
    assert len(published['items']) == 35


def test_over_long_text_is_refused_not_cut(published):
    long = [item for item in published['items'] if len(item['ids']) > CONTEXT_LENGTH]
    assert len(long) == 2
    for item in long:
        with pytest.raises(UsageError, match=r'93 tokens.*takes 90.*fewer decimals'):
            get_tokenizer().encode(item['prompt'])


def test_length_limit_counts_start_and_end():
    encode = get_tokenizer().encode
    assert len(encode('1 ' * 88)) == 90
    with pytest.raises(UsageError, match='91 tokens'):
        encode('1 ' * 89)
    assert len(encode('1 ' * 89, context_length=91)) == 91


def test_import_stays_light():
    code = (
        'import sys, tumsyn_bids.networks.tokenizer, tumsyn_bids.prompt;'
        'print([m for m in ("torch", "ftfy", "numpy") if m in sys.modules])'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
