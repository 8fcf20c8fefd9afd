"""--align: where the points of a face land, and what the commands do with it."""

import json

import numpy as np
import pytest
from PIL import Image

import toys  # noqa: F401 - the toy network
from gitloss.data import alignment
from gitloss.data.detection import POINTS, FaceDetector, points_of_largest
from gitloss.data.images import decoded
from trainers import embed, predict, run


def turned(points, degrees, scale, shift):
    """float64 [n, 2]: turned about the origin, scaled, shifted."""
    angle = np.radians(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ matrix.T + shift


@pytest.mark.parametrize('degrees, scale', [(0, 1.0), (30, 0.5), (-80, 7.0), (180, 1.3)])
def test_a_similarity_is_found_again(degrees, scale):
    points = np.random.RandomState(1).uniform(0, 112, (5, 2))
    places = turned(points, degrees, scale, [5.0, -3.0])
    found = alignment.similarity(points, places)
    np.testing.assert_allclose(points @ found[:, :2].T + found[:, 2], places, atol=1e-9)


@pytest.mark.parametrize('size', [(112, 112), (96, 112)])
@pytest.mark.parametrize('degrees, scale', [(0, 1.0), (20, 3.0), (-35, 1.7)])
def test_the_points_land_on_the_template(size, degrees, scale):
    """A bright spot on a point of a photograph is at the place of the template afterwards, to half
    a pixel. A side of 96 has the template in its middle, at 96 / 112 of its size.
    """
    points = turned(alignment.TEMPLATE, degrees, scale, [160.0, 190.0])
    side = min(size)
    places = (alignment.TEMPLATE + 0.5) * side / 112 - 0.5 + (np.array(size) - side) / 2
    down, right = np.mgrid[:800, :800]
    for point, place in zip(points, places):
        spot = 255 * np.exp(-((right - point[0]) ** 2 + (down - point[1]) ** 2) / (2 * scale**2))
        image = Image.fromarray(spot.astype(np.uint8))
        found = np.asarray(alignment.cut_out(image, points, size), float)
        assert found.shape == size[::-1]
        y, x = np.mgrid[: size[1], : size[0]]
        center = np.array([(x * found).sum(), (y * found).sum()]) / found.sum()
        np.testing.assert_allclose(center, place, atol=0.5)


def faces(pixels):
    """What mtcnn would return: a small face and a larger one, whose points are upright."""
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
    if not pixels.any():
        return []
    wrong = {name: (1, 1) for name in POINTS}
    right = {name: tuple(point) for name, point in zip(POINTS, alignment.TEMPLATE + [20, 30])}
    return [
        {'box': [0, 0, 5, 5], 'keypoints': wrong},
        {'box': [9, 9, 80, 90], 'keypoints': right},
    ]


def detect(pixels):
    return points_of_largest(faces(pixels))


@pytest.fixture
def detector(monkeypatch):
    for module in (embed, predict):
        monkeypatch.setattr(module, 'aligner', lambda: alignment.FaceAligner(detect))


def photograph(folder, name, seed=1):
    """A file of noise, 160 x 170 pixels; black for the seed 0."""
    pixels = np.random.RandomState(seed).randint(0, 256 if seed else 1, (170, 160, 3))
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(str(folder / name))
    return pixels, str(folder / name)


def test_the_largest_face_is_taken(tmp_path):
    """Upright and of the size of the template it is a plain cut, 20 pixels from the left and 30
    from above.
    """
    pixels, path = photograph(tmp_path, 'a.png')
    with open(path, 'rb') as file:
        found = decoded(file.read(), path, (112, 112, 3), alignment.FaceAligner(detect))
    np.testing.assert_allclose(found, pixels[30:142, 20:132], atol=1)


def test_the_commands_cut_faces_out(detector, tmp_path, capsys):
    people = tmp_path / 'people'
    people.mkdir()
    for person in 'ab':
        for number in range(4):
            photograph(people / person, f'{number}.png', 1 + number + 10 * (person == 'b'))
    ckpt = f'--ckpt_path={tmp_path / "run"}'
    flags = ['--dataset=folder', '--image_size=16', '--model=toy', '--steps=1', '--batch_size=4']
    flags += ['--noevaluate', '--valid_fraction=0', '--test_fraction=0', '--device=cpu']
    flags += [f'--data_path={people}', f'--exp_save_dir={tmp_path / "run"}']
    assert run.main(flags) == 0
    rows = {}
    for name, more in (('plain', []), ('cut', ['--align'])):
        out = tmp_path / f'{name}.npz'
        given = [ckpt, f'--data_path={people}', f'--out={out}', '--device=cpu', *more]
        assert embed.main(given) == 0
        with np.load(str(out)) as file:
            rows[name] = file['embeddings']
    assert np.abs(rows['plain'] - rows['cut']).max() > 1e-3
    capsys.readouterr()
    one = str(people / 'a' / '0.png')
    gallery = [ckpt, f'--gallery={tmp_path / "g.npz"}', '--device=cpu']
    assert predict.main([*gallery, '--align', 'enroll', str(people)]) == 0
    assert predict.main([*gallery, '--align', 'identify', one]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['score'] == pytest.approx(1.0)
    assert predict.main([*gallery, 'identify', one]) == 2  # of whole images
    assert 'of the same --align' in capsys.readouterr().err
    _, black = photograph(tmp_path, 'black.png', 0)
    assert predict.main([ckpt, '--device=cpu', '--align', black]) == 2
    assert capsys.readouterr().err == (
        f'trainers.predict: {black}: expected an image with a face. '
        'Received: one in which none is found\n'
    )


def fake_package(folder, monkeypatch, body):
    """A package mtcnn whose detector has this method body."""
    lines = f'class MTCNN:\n    def detect_faces(self, pixels):\n        {body}\n'
    (folder / 'mtcnn.py').write_text(lines)
    monkeypatch.syspath_prepend(str(folder))


def test_without_the_package_a_line_says_so(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    line = '^--align: expected mtcnn to be installed. Received: none; pip install '
    with pytest.raises(ValueError, match=line + '(--no-deps mtcnn==|"mtcnn>=)'):
        alignment.aligner()


def test_the_process_of_the_package(tmp_path, monkeypatch):
    """It answers image after image, also after an error; what it prints disturbs nothing."""
    body = (
        'print("hello"); name = ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"]; '
        'return [{"box": [0, 0, *pixels.shape[:2]], '
        '"keypoints": {n: (int(pixels[0, 0, 0]), i) for i, n in enumerate(name)}}] '
        'if pixels[0, 0, 0] else [][1]'
    )
    fake_package(tmp_path, monkeypatch, body)
    ask = FaceDetector()
    for value in (7, 0, 9):
        pixels = np.full((3, 4, 3), value, np.uint8)
        if value:
            assert ask(pixels).tolist() == [[value, number] for number in range(5)]
        else:
            with pytest.raises(ValueError, match='that mtcnn works. Received: list index'):
                ask(pixels)


def test_a_process_that_ends_is_a_line(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, 'import os; os._exit(3)')
    with pytest.raises(ValueError, match='Received: its process ended with status 3$'):
        FaceDetector()(np.zeros((3, 4, 3), np.uint8))


def test_the_package_itself_finds_no_face_in_noise(tmp_path):
    pytest.importorskip('mtcnn')
    _, path = photograph(tmp_path, 'noise.png')
    with open(path, 'rb') as file, pytest.raises(ValueError, match='noise.png: expected an image'):
        decoded(file.read(), path, (112, 112, 3), alignment.aligner())
