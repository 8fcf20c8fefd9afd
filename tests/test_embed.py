"""trainers.embed against the sweep of an evaluation: values, formats, resumption, shared work."""

import os
import sys

import numpy as np
import pytest

import portraits
from gitloss.data.embedding_files import read_npz
from gitloss.metrics.verification import unit_rows
from trainers import checkpoints, devices, embed, evaluate, parts, run
from trainers.engine import embedding

PEOPLE, IMAGES = ('ann', 'bö/li', 'cy'), 5


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder of images, folder of a run of two steps on them)."""
    folder = tmp_path_factory.mktemp('embed')
    images, out = portraits.write(folder / 'faces', PEOPLE, IMAGES), str(folder / 'run')
    flags = '--dataset=folder --image_size=16 --model=mnist_cnn --embedding_dim=3 --steps=2'
    flags += ' --batch_size=4 --update_centers=2 --noevaluate --device=cpu'
    paths = [f'--data_path={images}', f'--exp_save_dir={out}']
    assert run.main([*flags.split(), *paths]) == 0
    return images, out


def embedded(trained, out, *flags):
    images, ckpt = trained
    given = [f'--ckpt_path={ckpt}', f'--data_path={images}', f'--out={out}', '--device=cpu']
    return embed.main([*given, '--batch_size=4', *flags])


@pytest.fixture(scope='module')
def network(trained):
    """() -> the plain and mirrored embeddings of all images, one image at a time."""
    checkpoint = checkpoints.find(trained[1], '--ckpt_path')
    options = checkpoints.options_of(checkpoint)
    source = embed.open_source(trained[0], (16, 16, 3))
    with embedding.embedder(checkpoint, devices.choose(options), 1) as one:
        return one.embed(source, flip=True)


def test_the_file_has_names_embeddings_and_identities(trained, network, tmp_path, capsys):
    """15 images in batches of 4, the last one padded; names are paths without extension."""
    out = str(tmp_path / 'new' / 'e.npz')
    assert embedded(trained, out) == 0
    assert capsys.readouterr().out == f'{out}: 15 embeddings of 3 identities\n'
    names, rows = read_npz(out)
    assert names == [f'{who}/{n}' for who in PEOPLE for n in range(IMAGES)]
    np.testing.assert_allclose(rows, network.plain, rtol=1e-5, atol=1e-6)
    with np.load(out) as file:
        people = [file['classes'][label] for label in file['labels']]
    assert people == [name.rpartition('/')[0] for name in names]
    assert os.listdir(os.path.dirname(out)) == ['e.npz']


def test_mirror_images_and_length_one(trained, network, tmp_path):
    out = str(tmp_path / 'e.npz')
    assert embedded(trained, out, '--flip', '--normalize') == 0
    expected = unit_rows(network.plain + network.mirrored)
    np.testing.assert_allclose(read_npz(out)[1], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(network.plain - network.mirrored).max() > 1e-4


def test_tfrecord_holds_the_same(trained, network, tmp_path):
    from gitloss.backend import tf

    out = str(tmp_path / 'e.tfrecord')
    assert embedded(trained, out) == 0
    rows = [tf.train.Example.FromString(r).features.feature for r in tf.io.tf_record_iterator(out)]
    found = np.array([row['embedding'].float_list.value for row in rows])
    np.testing.assert_allclose(found, network.plain, rtol=1e-5, atol=1e-6)
    texts = [row['name'].bytes_list.value[0].decode() for row in rows]
    assert texts[5] == 'bö/li/0' and rows[5]['identity'].bytes_list.value[0].decode() == 'bö/li'


def test_parquet_holds_the_same(trained, network, tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    out = str(tmp_path / 'e.parquet')
    assert embedded(trained, out) == 0
    table = parquet.read_table(out).to_pydict()
    np.testing.assert_allclose(table['embedding'], network.plain, rtol=1e-5, atol=1e-6)
    assert table['name'][5] == 'bö/li/0' and table['identity'][5] == 'bö/li'


def test_without_pyarrow_a_line_says_so(tmp_path, monkeypatch, capsys):
    """Before the checkpoint is looked for. None in sys.modules: Python imports no such module."""
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    out, path = tmp_path / 'e.parquet', str(tmp_path)
    assert embed.main([f'--ckpt_path={path}', f'--data_path={path}', f'--out={out}']) == 2
    line = capsys.readouterr().err
    assert line.startswith('trainers.embed: .parquet: expected pyarrow to be installed. Received: ')
    assert line.endswith('; pip install "pyarrow>=12"\n') and line.count('\n') == 1


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, 'PART', 4)


def test_an_interrupted_command_is_continued(trained, tmp_path, monkeypatch, small_parts):
    """Four parts; the process ends in the third. The first two are not computed again."""
    whole, out = str(tmp_path / 'whole.npz'), str(tmp_path / 'e.npz')
    assert embedded(trained, whole) == 0
    write, written = parts.Parts.write, []

    def dying(self, number, rows):
        written.append(number)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(self, number, rows)

    monkeypatch.setattr(parts.Parts, 'write', dying)
    assert embedded(trained, out) == 130 and not os.path.exists(out)
    assert embedded(trained, out) == 0
    assert written == [0, 1, 2, 2, 3]
    with open(whole, 'rb') as one, open(out, 'rb') as other:
        assert len(one.read()) == len(other.read())
    assert (read_npz(whole)[1] == read_npz(out)[1]).all()


def test_processes_share_the_parts(tmp_path, small_parts):
    """Two at once: none computes a part that the other has claimed, and the one that ends first
    leaves the rest to the other.
    """
    facts = {'of': 'these'}
    one, two = (parts.Parts(str(tmp_path / 'p'), facts, 10) for _ in range(2))
    mine, theirs = one.claimed(), two.claimed()
    assert (next(mine), next(theirs)) == (0, 1)
    one.write(0, np.zeros((4, 2)))
    assert next(mine) == 2
    two.write(1, np.ones((4, 2)))
    assert list(theirs) == [] and not two.are_complete
    one.write(2, np.full((2, 2), 2.0))
    assert list(mine) == [] and one.are_complete
    assert np.concatenate(list(two.read()))[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 2


def test_a_process_that_comes_when_all_is_done_does_nothing(tmp_path, small_parts):
    """Another one has put the parts together and removed them."""
    one, two = (parts.Parts(str(tmp_path / 'p'), {}, 6) for _ in range(2))
    for number in one.claimed():
        one.write(number, np.zeros((4 if number == 0 else 2, 2)))
    with one.gathering() as is_there:
        assert is_there and one.are_complete
        one.remove()
    assert list(two.claimed()) == []
    with two.gathering() as is_there:
        assert not is_there


def test_parts_of_other_flags_are_refused(trained, tmp_path, capsys):
    out = str(tmp_path / 'e.npz')
    parts.Parts(out + '.parts', {'of': 'others'}, 15)
    assert embedded(trained, out) == 2
    assert 'e.npz.parts: expected parts of the same images and flags' in capsys.readouterr().err


@pytest.mark.parametrize(
    'flags, line',
    [
        (['--out=e.txt'], '--out: expected a file .npz, .parquet, .tfrecord. Received: e.txt'),
        (['--data_path=/nowhere'], '--data_path: expected images. Received: /nowhere'),
        (['--data_path='], '--data_path: expected images. Received: none'),
    ],
)
def test_mistakes_are_one_line(trained, here, capsys, flags, line):
    assert embedded(trained, 'e.npz', *flags) == 2
    assert capsys.readouterr().err == f'trainers.embed: {line}\n'
    assert os.listdir('.') == []


def test_a_broken_image_is_named(trained, tmp_path, capsys):
    folder = tmp_path / 'faces' / 'ann'
    folder.mkdir(parents=True)
    (folder / '1.png').write_bytes(b'\x89PNG broken')
    assert embedded((str(tmp_path / 'faces'), trained[1]), str(tmp_path / 'e.npz')) == 2
    assert 'ann/1.png: expected an undamaged' in capsys.readouterr().err


def test_embeddings_in_a_file_are_verified_as_the_checkpoint_is(trained, tmp_path, capsys):
    """The same pairs through --embeddings and through --ckpt_path."""
    import json

    out, pairs = str(tmp_path / 'e.npz'), tmp_path / 'pairs.txt'
    lines = [f'ann/{i}.png ann/{i + 1} 1\nann/{i} cy/{i}.png 0\n' for i in range(4)]
    pairs.write_text(''.join(lines))
    assert embedded(trained, out) == 0
    capsys.readouterr()
    report = tmp_path / 'report'
    images, ckpt = f'--pairs_path={trained[0]}', f'--ckpt_path={trained[1]}'
    results = []
    for flags in ([f'--embeddings={out}'], [ckpt, images, '--device=cpu']):
        given = [f'--pairs={pairs}', f'--report_path={report}', *flags]
        assert evaluate.main(given) == 0
        results.append(json.loads(capsys.readouterr().out))
    of_file, of_network = (result['plain'] for result in results)
    assert of_file['pairs'] == of_network['pairs'] == 8 and of_file['genuine'] == 4
    np.testing.assert_allclose(of_file['auc'], of_network['auc'], atol=1e-6)
    assert results[1]['overlap'] == {'people': 2, 'names': ['ann', 'cy']}
    assert results[0]['overlap'] is None and set(results[1]) > {'flip', 'step', 'checkpoint'}
    assert sorted(os.listdir(str(report))) == [
        *('roc.png', 'scores-flip.png', 'scores-plain.png', 'scores.png'),
        *('verification.json', 'verification.md'),
    ]


@pytest.mark.parametrize(
    'flags, line',
    [
        ([], 'flags: expected one of --ckpt_path and --embeddings. Received: '),
        (['--ckpt_path=a', '--embeddings=b'], 'flags: expected one of --ckpt_path and'),
        (['--embeddings=b'], '--pairs: expected pairs of the images of --embeddings'),
        (['--embeddings=b', '--pairs=c'], ''),
        (['--ckpt_path=a', '--report_path=b'], '--report_path: expected to stand with --pairs.'),
        (['--ckpt_path=a', '--far=0.1'], '--far: expected to stand with --pairs. Received: 0.1'),
    ],
)
def test_flags_of_a_verification_that_contradict_each_other(here, capsys, flags, line):
    assert evaluate.main(flags) == 2
    told = capsys.readouterr().err
    assert told.startswith(f'trainers.evaluate: {line}') and told.count('\n') == 1
