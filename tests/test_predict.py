"""trainers.predict: classes, enrolment without training, identification, verification."""

import json
import os

import numpy as np
import pytest

import portraits
from gitloss.data.gallery import enrolled, read_gallery
from gitloss.metrics.verification import pair_scores
from trainers import checkpoints, embed, predict


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(folder of the images of four people, folder of a run that can tell them apart)."""
    return portraits.trained(tmp_path_factory.mktemp('predict'))


def told(capsys, trained, *arguments):
    """(exit status, the objects printed)."""
    capsys.readouterr()
    status = predict.main([f'--ckpt_path={trained[1]}', '--device=cpu', *arguments])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope='module')
def embeddings(trained, tmp_path_factory):
    """{name of an image: embedding} by trainers.embed."""
    out = str(tmp_path_factory.mktemp('e') / 'e.npz')
    given = [f'--ckpt_path={trained[1]}', f'--data_path={trained[0]}', f'--out={out}']
    assert embed.main([*given, '--device=cpu']) == 0
    with np.load(out) as file:
        return dict(zip(file['names'].tolist(), file['embeddings']))


def test_class_confidence_and_the_nearest_center(trained, embeddings, capsys):
    """The distance is that of the embedding to the row of the table of centers."""
    paths = [f'{trained[0]}/{who}/1.png' for who in ('cy', 'ann', 'dee')]
    status, found = told(capsys, trained, *paths)
    assert status == 0 and [row['image'] for row in found] == paths
    checkpoint = checkpoints.find(trained[1], '--ckpt_path')
    centers = checkpoints.value(checkpoint, 'center_loss/centers')
    for row, who in zip(found, ('cy', 'ann', 'dee')):
        distances = np.linalg.norm(centers - embeddings[f'{who}/1'], axis=1)
        np.testing.assert_allclose(row['center_distance'], distances.min(), rtol=1e-3, atol=1e-4)
        assert row['nearest_center'] == portraits.PEOPLE[distances.argmin()]
        assert 0.25 <= row['confidence'] <= 1
    assert [row['class'] for row in found] == ['cy', 'ann', 'dee']


def test_people_are_enrolled_and_identified(trained, embeddings, tmp_path, capsys):
    """Two enrolled one by one, the other two as a folder; an image enrolled twice counts once."""
    gallery, distance = f'--gallery={tmp_path / "new" / "g.npz"}', '--similarity=euclidean'
    images, _ = trained
    probe = f'{images}/ann/3.png'
    one = told(capsys, trained, gallery, 'enroll', 'Ann', f'{images}/ann/0.png')
    two = told(capsys, trained, 'enroll', 'Ann', f'{images}/ann/0.png', gallery)
    assert one == two and (one[1][0]['images'], one[1][0]['people']) == (1, 1)
    folder = portraits.write(tmp_path / 'more', ('bo', 'cy'), 2)
    _, ((added),) = told(capsys, trained, gallery, 'enroll', folder)
    assert (added['enrolled'], added['images'], added['people']) == (4, 5, 3)
    _, (row,) = told(capsys, trained, gallery, 'identify', probe, '--neighbors=2', distance)
    pair = embeddings['ann/3'][None], embeddings['ann/0'][None]
    score = pair_scores(*pair, 'euclidean')[0]
    assert row['person'] == 'Ann' and row['threshold'] is None and len(row['neighbours']) == 2
    np.testing.assert_allclose(row['score'], score, rtol=1e-3, atol=1e-4)
    _, (row,) = told(capsys, trained, gallery, 'identify', probe, '--threshold=1.1')
    assert row['person'] is None and row['threshold'] == 1.1
    _, (row,) = told(capsys, trained, gallery, probe, distance)
    assert row['class'] == 'ann' and row['neighbours'][0]['image'] == 'Ann/0'


def test_two_images_by_a_calibrated_threshold(trained, embeddings, tmp_path, capsys):
    path = tmp_path / 'verification.json'
    calibration = {'threshold': 0.2, 'far': 0.01, 'tar': 0.9, 'target_far': 0.01}
    path.write_text(json.dumps({'similarity': 'cosine', 'plain': {'calibration': calibration}}))
    pair = [f'{trained[0]}/ann/0.png', f'{trained[0]}/bo/0.png']
    _, (row,) = told(capsys, trained, 'verify', *pair, f'--calibration={path}')
    score = pair_scores(embeddings['ann/0'][None], embeddings['bo/0'][None])[0]
    np.testing.assert_allclose(row['score'], score, rtol=1e-4, atol=1e-5)
    assert row['same'] == (score >= 0.2) and (row['threshold'], row['far']) == (0.2, 0.01)
    assert told(capsys, trained, 'verify', *pair)[1][0]['same'] is None


@pytest.mark.parametrize(
    'content, word',
    [
        ('{', 'expected a verification.json'),
        ('{"similarity": "cosine", "plain": {"calibration": null}}', 'expected a verification'),
        ('{"similarity": "euclidean", "plain": {"calibration": {"threshold": 1, "far": 1}}}',
         'expected one of cosine. Received: euclidean'),
    ],
)  # fmt: skip
def test_no_calibration_is_one_line(trained, tmp_path, capsys, content, word):
    path = tmp_path / 'v.json'
    path.write_text(content)
    pair = [f'{trained[0]}/ann/0.png'] * 2
    given = [f'--ckpt_path={trained[1]}', 'verify', *pair, f'--calibration={path}']
    assert predict.main([*given, '--device=cpu']) == 2
    told_line = capsys.readouterr().err
    assert word in told_line and told_line.count('\n') == 1


@pytest.mark.parametrize(
    'arguments, line',
    [
        ([], 'arguments: expected images. Received: none'),
        (['verify', 'a'], 'verify: expected two images. Received: 1'),
        (['identify', 'a'], '--gallery: expected a file with enrolled people. Received: none'),
        (['enroll', 'A', 'a'], '--gallery: expected a file to enrol people in. Received: none'),
        (
            ['--gallery=g', 'enroll', 'A', 'x/1.png', 'y/1.jpg'],
            'expected images of different names',
        ),
        (['nowhere.png'], 'No such file or directory'),
        (['--threshold=x', 'a'], '--threshold: expected a number'),
    ],
)
def test_mistakes_are_one_line(trained, here, capsys, arguments, line):
    assert predict.main([f'--ckpt_path={trained[1]}', '--device=cpu', *arguments]) == 2
    said = capsys.readouterr().err
    assert line in said and said.startswith('trainers.predict: ') and said.count('\n') == 1


def test_a_gallery_of_another_network_is_refused(tmp_path):
    path = str(tmp_path / 'g.npz')
    enrolled(path, 'one', ['a/1'], np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match='of --ckpt_path and of the same --align. Received'):
        enrolled(path, 'other', ['a/2'], np.ones((1, 3), np.float32))
    assert read_gallery(path, 'one').names == ['a/1']
    assert os.listdir(str(tmp_path)) == ['g.npz']
