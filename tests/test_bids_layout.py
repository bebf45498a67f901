"""Indexing is limited to what is asked for, and wrong input is named."""

from __future__ import annotations

import json
import multiprocessing

import pytest
from bids.layout import Query
from bids_builder import SIDECAR, Builder

from tumsyn_bids.bids.layout import (
    index_dataset,
    list_participants,
    list_sessions,
    load_filters,
    unknown_queries,
)
from tumsyn_bids.errors import UsageError


@pytest.fixture
def dataset(tmp_path):
    builder = Builder(tmp_path / 'ds')
    builder.image('sub-01_ses-a_T1w.nii.gz', SIDECAR)
    builder.image('sub-01_ses-b_T2w.nii.gz', SIDECAR)
    builder.image('sub-02_T1w.nii.gz', SIDECAR)
    builder.image('sub-010_T1w.nii.gz', SIDECAR)
    builder.text('sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz', '')
    builder.text('derivatives/x/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz', '')
    builder.text('sourcedata/sub-09/anat/sub-09_T1w.nii.gz', '')
    builder.text('code/sub-08_T1w.nii.gz', '')
    return builder


def images(layout):
    return sorted(file.filename for file in layout.get(extension=['.nii', '.nii.gz']))


def test_only_anatomical_images(dataset):
    layout = index_dataset(dataset.root)
    assert images(layout) == [
        'sub-010_T1w.nii.gz',
        'sub-01_ses-a_T1w.nii.gz',
        'sub-01_ses-b_T2w.nii.gz',
        'sub-02_T1w.nii.gz',
    ]


@pytest.mark.parametrize('label', ['01', 'sub-01'])
def test_only_the_participants_asked_for(dataset, label):
    layout = index_dataset(dataset.root, participant_label=[label])
    assert images(layout) == ['sub-01_ses-a_T1w.nii.gz', 'sub-01_ses-b_T2w.nii.gz']


def test_participants_and_sessions(dataset):
    layout = index_dataset(dataset.root)
    assert list_participants(layout) == list_participants(dataset.root) == ['01', '010', '02']
    assert list_sessions(layout, '01') == ['a', 'b']
    assert list_sessions(layout, '02') == [None]
    (dataset.root / 'sub-02' / 'ses-x' / 'func').mkdir(parents=True)
    assert list_sessions(layout, '02') == [None, 'x']


def test_database_is_made_once_and_holds_everyone(dataset, tmp_path):
    database = tmp_path / 'a' / 'database'
    index_dataset(dataset.root, database_dir=database, participant_label=['02'])
    assert [path.name for path in database.parent.iterdir()] == ['database']
    written = (database / 'layout_index.sqlite').stat().st_mtime_ns
    layout = index_dataset(dataset.root, database_dir=database)
    assert len(images(layout)) == 4
    assert (database / 'layout_index.sqlite').stat().st_mtime_ns == written
    other = tmp_path / 'other'
    unmade = index_dataset(dataset.root, database_dir=other, make_database=False)
    assert images(unmade) == images(layout)
    assert not other.exists()


def _index_at_once(root, database, start, found):
    start.wait()
    found.put(images(index_dataset(root, database_dir=database)))


def test_a_database_that_several_make_at_once_is_whole_for_each(dataset, tmp_path):
    context = multiprocessing.get_context('fork')
    start, found = context.Event(), context.Queue()
    arguments = (dataset.root, tmp_path / 'a' / 'database', start, found)
    processes = [context.Process(target=_index_at_once, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    everybody = [found.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    assert everybody == [images(index_dataset(dataset.root))] * 4
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['database']


@pytest.mark.parametrize(
    ('make', 'problem', 'remedy'),
    [
        (lambda root: root / 'absent', 'does not exist', 'root folder'),
        (lambda root: root / 'dataset_description.json', 'no folder', 'root folder'),
        (lambda root: root / 'sub-01', 'no dataset_description.json', 'Give its root'),
        (lambda root: root.parent, 'no dataset_description.json', 'BIDSVersion'),
    ],
)
def test_no_dataset(dataset, make, problem, remedy):
    path = make(dataset.root)
    with pytest.raises(UsageError, match=problem) as error:
        index_dataset(path)
    assert error.value.path == path
    assert remedy in error.value.remedy
    assert error.value.exit_code == 2


def test_broken_description(dataset):
    dataset.text('dataset_description.json', '{"Name": }')
    with pytest.raises(UsageError, match=r'dataset_description\.json: not valid JSON'):
        index_dataset(dataset.root)


def test_unknown_participant(dataset):
    with pytest.raises(
        UsageError, match='no participant 1, zz in the dataset; it has 01, 010, 02'
    ):
        index_dataset(dataset.root, participant_label=['sub-01', '1', 'sub-zz'])


def test_many_participants_are_not_all_listed(dataset):
    for number in range(100, 120):
        (dataset.root / f'sub-{number}').mkdir()
    with pytest.raises(UsageError, match='and 13 more'):
        index_dataset(dataset.root, participant_label=['x'])


def test_filter_file(tmp_path):
    path = tmp_path / 'filter.json'
    path.write_text(
        json.dumps({'T1w': {'acquisition': None, 'run': '*', 'echo': [1, 2]}, 'bold': {}})
    )
    assert load_filters(path) == {
        't1w': {'acquisition': Query.NONE, 'run': Query.ANY, 'echo': [1, 2]},
        'bold': {},
    }


@pytest.mark.parametrize('text', ['{', '[]', '{"t1w": "mprage"}'])
def test_unusable_filter_file(tmp_path, text):
    path = tmp_path / 'filter.json'
    path.write_text(text)
    with pytest.raises(UsageError, match=r'filter\.json') as error:
        load_filters(path)
    assert error.value.remedy


@pytest.mark.parametrize('value', [{'a': 1}, [{'a': 1}], [['x']]])
def test_filter_values_that_cannot_be(tmp_path, value):
    path = tmp_path / 'filter.json'
    path.write_text(json.dumps({'t1w': {'acquisition': value}}))
    with pytest.raises(UsageError, match='no value of an entity') as error:
        load_filters(path)
    assert error.value.field == 't1w, acquisition'


def test_folder_that_may_not_be_read_is_left_out_of_the_index(dataset, monkeypatch, tmp_path):
    from bids.layout import BIDSLayoutIndexer

    original = BIDSLayoutIndexer._index_dir

    def index(self, path, *args, **how):
        if str(path).endswith('sub-02'):
            raise PermissionError(13, 'Permission denied', f'{path}/layout_config.json')
        return original(self, path, *args, **how)

    monkeypatch.setattr(BIDSLayoutIndexer, '_index_dir', index)
    for database in (None, tmp_path / 'database'):
        found = images(index_dataset(dataset.root, database_dir=database))
        assert found == [
            'sub-010_T1w.nii.gz',
            'sub-01_ses-a_T1w.nii.gz',
            'sub-01_ses-b_T2w.nii.gz',
        ]


def test_names_of_queries_that_select_nothing():
    known = ('t1w', 't2w', 'flair', 'pdw', 't2starw', 'swi', 't1ce', 'bold', 'fmap', 'sbref')
    assert unknown_queries((*known, 't1', 'anat')) == ['t1', 'anat']


def test_absent_filter_file(tmp_path):
    with pytest.raises(UsageError, match='cannot be read'):
        load_filters(tmp_path / 'none.json')
