"""Which images of a source a run reads, and how they are split."""

import os
import shutil

import numpy as np
import pytest

import faces
from gitloss import data
from gitloss.errors import log
from helpers import pixels

SETTINGS = data.ImageSettings((16, 16, 3))
PARTS = ('train', 'valid', 'test')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Five identities of 10, 15, 5, 4 and 1 images."""
    return faces.write(tmp_path_factory.mktemp('faces'), 5, [10, 15, 5, 4, 1])


def load(path, kind='folder', **changes):
    return data.load(kind, str(path), SETTINGS._replace(**changes))


def files_of(split):
    return [split.where(index) for index in range(len(split))]


def counts(split, classes=5):
    return np.bincount(split.labels, minlength=classes).tolist()


def test_each_identity_gives_its_fraction_of_images(folder):
    """floor(n / 10 + 1/2) of 10, 15, 5, 4, 1 images are 1, 2, 1, 0, 0; the rest is 8, 11, 3, 4,
    1.
    """
    dataset = load(folder)
    assert counts(dataset.valid) == counts(dataset.test) == [1, 2, 1, 0, 0]
    assert counts(dataset.train) == [8, 11, 3, 4, 1]
    everything = sum((files_of(getattr(dataset, part)) for part in PARTS), [])
    assert len(everything) == len(set(everything)) == 35
    assert dataset.spec.num_classes == 5 and dataset.names == tuple(map(faces.name, range(5)))
    for part in PARTS:
        split = getattr(dataset, part)
        for path, label in zip(files_of(split), split.labels):
            assert os.path.basename(os.path.dirname(path)) == dataset.names[label]


def test_a_split_is_a_function_of_the_seed(folder):
    first, again, other = (files_of(load(folder, seed=seed).valid) for seed in (1, 1, 2))
    assert first == again != other and len(first) == len(other)


def test_one_image_stays_in_training(tmp_path):
    """2 images: 1 for validation, of the test's floor(0.8 + 0.5) = 1 none is left. 3 images: 2 and
    then none.
    """
    faces.write(tmp_path, 2, [2, 3])
    dataset = load(tmp_path, valid_fraction=0.5, test_fraction=0.4)
    assert counts(dataset.train, 2) == [1, 1] and counts(dataset.valid, 2) == [1, 2]
    assert dataset.test is None


def test_identities_are_split_whole_and_are_no_classes_outside_training(tmp_path):
    """10 identities: 2 for validation, 2 for the test, 6 are the classes 0 to 5."""
    faces.write(tmp_path, 10, 2)
    dataset = load(tmp_path, split='identity', valid_fraction=0.2, test_fraction=0.2)
    labels = {part: set(getattr(dataset, part).labels.tolist()) for part in PARTS}
    assert labels == {'train': set(range(6)), 'valid': {6, 7}, 'test': {8, 9}}
    assert dataset.spec.num_classes == 6
    assert sorted(dataset.names) == list(map(faces.name, range(10)))
    assert list(dataset.names[:6]) == sorted(dataset.names[:6])
    for part in PARTS:
        split = getattr(dataset, part)
        assert [
            dataset.names[label] == os.path.basename(os.path.dirname(path))
            for path, label in zip(files_of(split), split.labels)
        ] == [True] * len(split)


def test_two_identities_stay_in_training(tmp_path):
    faces.write(tmp_path, 3, 2)
    dataset = load(tmp_path, split='identity', valid_fraction=0.5, test_fraction=0.4)
    assert dataset.spec.num_classes == 2 and len(dataset.valid) == 2 and dataset.test is None


def test_fractions_of_0_hold_nothing_out(folder):
    dataset = load(folder, valid_fraction=0, test_fraction=0)
    assert len(dataset.train) == 35 and dataset.valid is dataset.test is None


def test_a_fraction_of_too_few_images_is_said(tmp_path, monkeypatch):
    faces.write(tmp_path, 2, 3)
    said = []
    monkeypatch.setattr(log, 'warning', lambda text, *values: said.append(text % values))
    assert load(tmp_path, test_fraction=0).valid is None
    assert said == ['--valid_fraction=0.1: too few images; none is held out']


def test_splits_as_given(tmp_path):
    """The identity 7 of the test is no class; 2, with one training image, is left out of all."""
    for part, numbers, images in (
        ('train', [0, 1, 2], [3, 3, 1]),
        ('val', [0, 2], 2),
        ('test', [1, 2, 7], 2),
    ):
        faces.write(tmp_path / part, numbers, images)
    dataset = load(tmp_path, split='given', min_images=2, check_images=False)
    assert dataset.names == tuple(map(faces.name, (0, 1, 7))) and dataset.spec.num_classes == 2
    assert [counts(getattr(dataset, part), 3) for part in PARTS] == [
        [3, 3, 0],
        [2, 0, 0],
        [0, 2, 2],
    ]


def test_a_given_test_alone_has_no_classes(tmp_path):
    faces.write(tmp_path / 'test', 2, 2)
    dataset = load(tmp_path, split='given')
    assert dataset.train is dataset.valid is None
    assert dataset.spec.num_classes == 0 and counts(dataset.test, 2) == [2, 2]


def test_the_largest_identities_are_kept_and_ties_go_by_name(tmp_path):
    """Of 2, 3, 3, 1, 3 images: with two classes the numbers 1 and 2, with four and two images at
    least all but number 3.
    """
    faces.write(tmp_path, 5, [2, 3, 3, 1, 3])
    chosen = dict(valid_fraction=0, test_fraction=0)
    assert load(tmp_path, max_classes=2, **chosen).names == tuple(map(faces.name, (1, 2)))
    four = load(tmp_path, max_classes=4, min_images=2, **chosen)
    assert four.names == tuple(map(faces.name, (0, 1, 2, 4)))
    assert counts(four.train, 4) == [2, 3, 3, 3]


@pytest.mark.parametrize(
    'changes, received',
    [
        ({'min_images': 16}, '0; the largest of 5 has 15 images'),
        ({'min_images': 11}, '1; the largest of 5 has 15 images'),
        ({'max_classes': 1}, '1; the largest of 5 has 15 images'),
    ],
)
def test_a_single_identity_is_no_data_set(folder, changes, received):
    limits = {'min_images': 1, 'max_classes': 0, **changes}
    with pytest.raises(ValueError) as caught:
        load(folder, **changes)
    assert str(caught.value) == (
        '--data_path: expected two identities or more with '
        f'--min_images={limits["min_images"]} and --max_classes={limits["max_classes"]}. '
        f'Received: {received}'
    )


@pytest.mark.parametrize(
    'path, changes, said',
    [
        ('', {}, '--data_path: expected the images of --dataset=folder. Received: none'),
        (
            'here',
            {'split': 'given'},
            '--data_path: expected train, valid, val or test in here with --split=given. '
            'Received: none of them',
        ),
    ],
)
def test_data_that_are_not_there(tmp_path, monkeypatch, path, changes, said):
    monkeypatch.chdir(tmp_path)
    os.mkdir('here')
    with pytest.raises(ValueError) as caught:
        load(path, **changes)
    assert str(caught.value) == said


def test_names_that_a_line_cannot_hold_are_refused(tmp_path):
    faces.write(tmp_path, 2, 2)
    os.rename(str(tmp_path / faces.name(0)), str(tmp_path / 'a\nb'))
    with pytest.raises(ValueError, match='^--data_path: expected printable names of identities. '):
        load(tmp_path)


def test_classes_of_a_checkpoint_keep_their_labels(folder):
    """Three classes, one of which has no images here; the others are no classes."""
    classes = [faces.name(number) for number in (3, 0, 99)]
    dataset = load(folder, classes=classes)
    assert dataset.spec.num_classes == 3
    assert dataset.names == tuple(map(faces.name, (3, 0, 99, 1, 2, 4)))
    assert counts(dataset.train, 6) == [4, 8, 0, 11, 3, 1]


def test_a_subset_reads_its_images(folder):
    dataset = load(folder)
    whole = data.IMAGES['folder'].open(folder, (16, 16, 3))
    places = {whole.where(index): index for index in range(len(whole))}
    chosen = [places[path] for path in files_of(dataset.valid)]
    np.testing.assert_array_equal(pixels(dataset.valid), whole.read(np.array(chosen)))
    assert dataset.valid.encoded(2) == whole.encoded(chosen[2])
    assert dataset.valid.parallel == whole.parallel
    assert dataset.valid.image_shape == (16, 16, 3)


def test_the_fingerprint_covers_data_choice_and_labels(folder, tmp_path):
    """Nor does it depend on where the folder lies."""
    base = load(folder).train.fingerprint
    moved = shutil.copytree(folder, str(tmp_path / 'moved'))
    assert load(moved).train.fingerprint == base
    classes = list(map(faces.name, (4, 3, 2, 1, 0)))
    others = [load(folder, seed=2), load(folder, min_images=2), load(folder, classes=classes)]
    os.rename(os.path.join(moved, faces.name(1)), os.path.join(moved, 'person 001b'))
    others.append(load(moved))
    assert len({base, *(each.train.fingerprint for each in others)}) == 5


def test_the_lists_of_a_run_are_read_again(tmp_path):
    """With --dataset=list --split=given: the same names, labels and pixels."""
    folder, run = faces.write(tmp_path / 'faces', 8, 2), tmp_path / 'run'
    dataset = load(folder, split='identity', valid_fraction=0.25, test_fraction=0.25)
    run.mkdir()
    for name, content in data.files_of_run(dataset):
        (run / name).write_bytes(content)
    assert sorted(os.listdir(str(run))) == sorted(
        ['labels.txt', 'broken.txt', 'train.list', 'valid.list', 'test.list']
    )
    assert (run / 'labels.txt').read_text() == ''.join(name + '\n' for name in dataset.names[:4])
    again = load(run, 'list', split='given')
    assert again.names == dataset.names and again.spec.num_classes == 4
    for part in PARTS:
        np.testing.assert_array_equal(getattr(again, part).labels, getattr(dataset, part).labels)
        np.testing.assert_array_equal(pixels(getattr(again, part)), pixels(getattr(dataset, part)))


def test_pixels_are_centered(folder):
    """(x - 127.5) / 128 = x / 128 - 127.5 / 128, exactly."""
    assert load(folder).spec.preprocessing == data.Preprocessing(128.0, 0.99609375)
