"""``tumsyn models``: the store, import and fetch, without internet."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nibabel as nb
import numpy as np
import pytest
import torch

from tumsyn_bids.cli.parser import parse
from tumsyn_bids.cli.tools import main
from tumsyn_bids.errors import ModelError
from tumsyn_bids.networks import zenodo
from tumsyn_bids.networks.config import DecoderConfig, EncoderConfig, SynthesisConfig, TextConfig
from tumsyn_bids.networks.model import Model
from tumsyn_bids.networks.store import embedded_model, find_model, models_dir


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store of this test alone."""
    monkeypatch.setenv('TUMSYN_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home' / 'models'


@pytest.fixture
def checkpoints(tmp_path):
    config = SynthesisConfig(
        'x',
        text=TextConfig(width=64, layers=1, heads=1, embed_dim=8),
        encoder=EncoderConfig(n_feats=4, n_resblocks=1, out_dim=8),
        decoder=DecoderConfig(hidden=(8,)),
    )
    network = Model(config)
    folder = tmp_path / 'published'
    folder.mkdir()
    torch.save({'model_G': {'sd_G': network.synthesis.state_dict()}}, folder / 'checkpoint.pt')
    torch.save(
        {'model_state_dict': network.prompt.text.state_dict()}, folder / 'checkpoint_CLIP.pt'
    )
    return folder


def import_command(folder, name='mine'):
    files = '--synthesis', str(folder / 'checkpoint.pt')
    files += '--text-encoder', str(folder / 'checkpoint_CLIP.pt')
    return ['models', 'import', name, *files, '--licence', 'CC-BY-4.0']


def test_import_list_info_verify(store, checkpoints, capsys):
    assert main(import_command(checkpoints)) == 0
    assert capsys.readouterr().out == f'tumsyn models import: finished: {store / "mine"}\n'
    assert [path.name for path in store.iterdir()] == ['mine']
    assert main(['models', 'list']) == 0
    assert [line.split('\t')[0] for line in capsys.readouterr().out.splitlines()] == [
        'embedded',
        'mine',
    ]
    assert main(['models', 'info', 'mine']) == 0
    about = json.loads(capsys.readouterr().out)
    assert about['licence'] == 'CC-BY-4.0'
    original = (checkpoints / 'checkpoint.pt').read_bytes()
    assert about['originals']['synthesis']['sha256'] == hashlib.sha256(original).hexdigest()
    assert main(['models', 'verify', 'mine']) == 0
    assert 'checksum as recorded' in capsys.readouterr().out


def test_verify_sees_a_changed_weight(store, checkpoints, capsys):
    main(import_command(checkpoints))
    path = store / 'mine' / 'model.safetensors'
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert main(['models', 'verify', 'mine']) == 2
    assert 'have changed' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'word'), [('mine', 'exists already'), ('embedded', 'name'), ('../x', 'name')]
)
def test_import_refuses_names(store, checkpoints, capsys, name, word):
    main(import_command(checkpoints))
    assert main(import_command(checkpoints, name)) == 2
    assert word in capsys.readouterr().err


def test_a_failed_import_leaves_nothing(store, checkpoints, capsys):
    (checkpoints / 'checkpoint.pt').write_bytes(b'PK')
    assert main(import_command(checkpoints)) == 2
    assert 'is cut off' in capsys.readouterr().err
    assert not store.exists()


def test_a_model_is_found_by_name_and_by_path(store, checkpoints, tmp_path, monkeypatch):
    main(import_command(checkpoints))
    assert find_model('embedded') == embedded_model()
    assert find_model('mine') == store / 'mine'
    assert find_model(store / 'mine') == store / 'mine'
    command = [str(tmp_path), str(tmp_path / 'out'), 'participant', '--model', 'mine']
    assert parse(command).settings.model == str(store / 'mine')
    # A folder of that name where the command runs comes first.
    monkeypatch.chdir(tmp_path)
    shutil.copytree(store / 'mine', tmp_path / 'mine')
    assert find_model('mine') == tmp_path / 'mine'


def test_an_imported_model_makes_an_image(store, checkpoints, tmp_path, capsys):
    main(import_command(checkpoints))
    affine = np.diag([4.0, 4, 4, 1])
    distance = np.linalg.norm(np.indices((16, 16, 16)) - 7.5, axis=0) * 4
    brain = np.where(distance < 20, 100 + distance, 0).astype('f4')
    scan, mask, out = (tmp_path / f'{name}.nii.gz' for name in ('sub-01_T1w', 'mask', 'out'))
    nb.Nifti1Image(brain, affine).to_filename(scan)
    nb.Nifti1Image((brain > 0).astype('u1'), affine).to_filename(mask)
    command = ['synth', str(scan), str(out), '--contrast', 'T2w', '--mask', str(mask)]
    code = main([*command, '--model', 'mine', '--voxel-size', '4', '4', '4', '--device', 'cpu'])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert 'what the model was trained on is not recorded' in captured.err
    made = json.loads((tmp_path / 'out.json').read_text())
    assert made['SynthesisModel']['Name'] == 'mine'
    assert np.isfinite(nb.load(out).get_fdata()).all()


def test_models_dir_option(store, checkpoints, tmp_path, capsys):
    other = str(tmp_path / 'other')
    assert main([*import_command(checkpoints), '--models-dir', other]) == 0
    command = [str(tmp_path), str(tmp_path / 'out'), 'participant', '--model', 'mine']
    assert parse([*command, '--models-dir', other]).settings.model == f'{other}/mine'
    with pytest.raises(ModelError, match='no model'):
        find_model('mine')


def test_an_unknown_model_is_answered_with_the_known_ones(store, checkpoints):
    main(import_command(checkpoints))
    with pytest.raises(ModelError, match=r"no model 'yours'.*: embedded, mine\."):
        find_model('yours')


def test_the_store_lies_in_the_data_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv('TUMSYN_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_DATA_HOME', raising=False)
    assert models_dir() == tmp_path / '.local' / 'share' / 'tumsyn' / 'models'
    monkeypatch.setenv('XDG_DATA_HOME', '/data')
    assert str(models_dir()) == '/data/tumsyn/models'


class _Zenodo(BaseHTTPRequestHandler):
    """Answers like Zenodo; ``state`` notes what is asked for and says where to cut an answer."""

    def __init__(self, files, state, *args):
        self.files, self.state = files, state
        super().__init__(*args)

    def do_GET(self):
        path = self.path.removeprefix(f'/api/records/{zenodo.RECORD}')
        name = path.removeprefix('/files/').removesuffix('/content')
        self.state['asked'].append((name, self.headers.get('Range')))
        if path == '':
            self._answer(200, self.state['record'])
        elif name in self.files:
            self._file(self.files[name], self.state['cut'].pop(name, None))
        else:
            self._answer(404, b'')

    def _file(self, data, cut):
        first = int((self.headers.get('Range') or 'bytes=0-')[6:-1])
        self.send_response(206 if first else 200)
        self.send_header('Content-Length', str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first:cut])

    def _answer(self, code, body):
        self.send_response(code)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(checkpoints):
    files = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    record = {
        'metadata': {'license': {'id': 'cc-by-4.0'}},
        'files': [
            {
                'key': name,
                'size': len(data),
                'checksum': 'md5:' + hashlib.md5(data, usedforsecurity=False).hexdigest(),
            }
            for name, data in sorted(files.items())
        ],
    }
    state = {'asked': [], 'cut': {}, 'record': json.dumps(record).encode()}
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(_Zenodo, files, state))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}', state, files
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_and_then_the_command_it_names(site, store, capsys):
    address, state, files = site
    assert main(['models', 'fetch', '--site', address]) == 0
    out = capsys.readouterr().out
    folder = store.parent / 'downloads' / zenodo.RECORD
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    command = out.splitlines()[-1].removeprefix('next: tumsyn ').split()
    assert main(command) == 0
    assert main(['models', 'verify', 'official']) == 0
    # Complete files are not asked for again.
    state['asked'].clear()
    assert main(['models', 'fetch', '--site', address]) == 0
    assert state['asked'] == [('', None)]


def test_an_interrupted_file_goes_on_where_it_stopped(site, store, tmp_path, capsys):
    address, state, files = site
    state['cut']['checkpoint_CLIP.pt'] = 5_000_000
    command = ['models', 'fetch', '--site', address, '--to', str(tmp_path / 'd')]
    assert main(command) == 2
    assert 'what has arrived is kept' in capsys.readouterr().err
    state['asked'].clear()
    assert main(command) == 0
    (_, (name, asked)) = state['asked']
    assert name == 'checkpoint_CLIP.pt'
    assert 4_900_000 < int(asked.removeprefix('bytes=').rstrip('-')) <= 5_000_000
    assert {path.name: path.read_bytes() for path in (tmp_path / 'd').iterdir()} == files


def test_a_wrong_checksum_is_refused(site, tmp_path, capsys):
    address, _, files = site
    files['checkpoint.pt'] = files['checkpoint.pt'][:-1] + b'x'
    assert main(['models', 'fetch', '--site', address, '--to', str(tmp_path / 'd')]) == 2
    assert 'checksum' in capsys.readouterr().err
    assert not (tmp_path / 'd' / 'checkpoint.pt').exists()


@pytest.mark.parametrize('answer', [b'[]', b'<html>', b'{"files": [{"key": "../../x"}]}'])
def test_a_site_that_is_no_record_is_refused(site, tmp_path, capsys, answer):
    address, state, _ = site
    state['record'] = answer
    assert main(['models', 'fetch', '--site', address, '--to', str(tmp_path / 'd')]) == 2
    assert 'does not answer like' in capsys.readouterr().err


def test_a_file_that_the_site_does_not_give_is_told_with_its_answer(site, tmp_path, capsys):
    address, _, files = site
    del files['checkpoint.pt']
    assert main(['models', 'fetch', '--site', address, '--to', str(tmp_path / 'd')]) == 2
    assert 'checkpoint.pt/content answers with error 404' in capsys.readouterr().err


def test_without_internet_it_says_what_to_do_by_hand(tmp_path, capsys):
    folder = tmp_path / 'd'
    code = main(['models', 'fetch', '--site', 'http://127.0.0.1:9', '--to', str(folder)])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    for words in (
        'https://zenodo.org/records/13119176',
        f'tumsyn models import official --synthesis {folder / "checkpoint.pt"}',
        str(folder / 'checkpoint_CLIP.pt'),
    ):
        assert words in line
