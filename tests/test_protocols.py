"""Every contrast has a plausible default protocol at each field strength."""

from __future__ import annotations

import json
import math

import pytest

from tumsyn_bids.acquisition import BIDS_KEYS, CONTRASTS
from tumsyn_bids.prompt import parse_prompt, render_prompt
from tumsyn_bids.protocols import PROTOCOLS, default_protocol, protocol_for, protocol_sources


@pytest.mark.parametrize('contrast', CONTRASTS)
@pytest.mark.parametrize('field_strength', [1.5, 3.0])
def test_each_contrast_at_each_field(contrast, field_strength):
    acq = default_protocol(contrast, field_strength)
    assert (acq.contrast, acq.field_strength) == (contrast, field_strength)
    assert acq.voxel_size == (1, 1, 1)
    assert 0 < acq.echo_time < acq.repetition_time < 15
    assert (acq.inversion_time is None) == (contrast not in ('T1w', 'T1CE', 'FLAIR'))
    assert acq.inversion_time is None or acq.inversion_time < acq.repetition_time
    assert 5 <= acq.flip_angle <= 180
    assert (acq.age, acq.sex, acq.manufacturer) == (None, None, None)
    assert parse_prompt(render_prompt(acq)) == acq


@pytest.mark.parametrize(
    ('asked', 'taken'), [(None, 3), (0.064, 1.5), (1.494, 1.5), (2.0, 1.5), (2.2, 3), (7, 3)]
)
def test_nearest_field_strength(asked, taken):
    assert default_protocol('T2w', asked).field_strength == taken


def test_flair_nulls_csf():
    """Zero crossing of an inversion recovery with T1 of CSF between 3.5 and 4.5 s."""

    def null(tr, t1):
        return t1 * (math.log(2) - math.log(1 + math.exp(-tr / t1)))

    for field_strength in (1.5, 3.0):
        acq = default_protocol('FLAIR', field_strength)
        tr = acq.repetition_time
        assert 0.95 * null(tr, 3.5) < acq.inversion_time < 1.05 * null(tr, 4.5)


def test_sources_are_told():
    rows = protocol_sources()
    assert len(rows) == 2 * len(CONTRASTS) == len(PROTOCOLS)
    assert all(len(row['source']) > 20 for row in rows)
    assert rows[1]['TE (ms)'] == '2.98'
    assert protocol_for('T1w', None).source.startswith('sidecar of OpenNeuro ds004513')


@pytest.mark.parametrize(
    ('contrast', 'field_strength', 'file'),
    [
        ('T1w', 3, 'ds004513/sub-s003/ses-closed/anat/sub-s003_ses-closed_T1w.json'),
        ('T2w', 1.5, 'dcm_qa_cs_dl/Ref/Si_4_t2_tse_tra_p2_DR_off.json'),
        ('T2w', 3, 'ds004332/sub-01/anat/sub-01_acq-t2tsepmcoff_rec-wore_run-01_T2w.json'),
        ('PDw', 3, 'dcm_qa_pdt2/Ref/Siemens_pd+t2_tse_sag_ISO_1.8mm_3_e1.json'),
        ('FLAIR', 1.5, 'ds004889/sub-1/anat/sub-1_FLAIR.json'),
        ('FLAIR', 3, 'ds004146/sub-0001/ses-01/anat/sub-0001_ses-01_FLAIR.json'),
        (
            'T2starw',
            3,
            'ds004332/sub-01/anat/sub-01_acq-t2starpmcoff_rec-wore_run-01_T2starw.json',
        ),
        ('SWI', 3, 'ds004146/sub-0001/ses-01/swi/sub-0001_ses-01_swi.json'),
    ],
)
def test_rows_are_what_their_sidecars_say(shared_data, contrast, field_strength, file):
    sidecar = json.loads((shared_data / 'sidecars' / file).read_text())
    acq = default_protocol(contrast, field_strength)
    for name in ('repetition_time', 'echo_time', 'inversion_time', 'flip_angle'):
        assert getattr(acq, name) == sidecar.get(BIDS_KEYS[name]), name
    assert acq.field_strength == sidecar['MagneticFieldStrength']


def test_documentation_shows_the_table(repository):
    text = (repository / 'docs' / 'protocols.md').read_text()
    for row in protocol_sources():
        assert f'| {" | ".join(row.values())} |' in text
