"""The search for broken images and for equal images of two identities."""

import os
import shutil

import numpy as np
import pytest

import faces
from gitloss import data
from gitloss.data import checking
from gitloss.errors import log

SETTINGS = data.ImageSettings((16, 16, 3), valid_fraction=0, test_fraction=0)


def load(folder, **changes):
    return data.load('folder', str(folder), SETTINGS._replace(**changes))


def place(folder, identity, number):
    return os.path.join(str(folder), faces.name(identity), f'{number:03d}.png')


@pytest.fixture
def damaged(tmp_path):
    """3 identities of 4 images: an empty one, a truncated one, one that two identities share."""
    faces.write(tmp_path, 3, 4)
    open(place(tmp_path, 0, 3), 'wb').close()
    with open(place(tmp_path, 1, 0), 'r+b') as file:
        file.truncate(60)
    shutil.copy(place(tmp_path, 0, 1), place(tmp_path, 2, 2))
    return str(tmp_path)


BROKEN = [(0, 1), (0, 3), (1, 0), (2, 2)]


def files_of(split):
    return [split.where(index) for index in range(len(split))]


def test_broken_images_are_left_out_and_listed(damaged):
    dataset = load(damaged, max_broken=4)
    wanted = [place(damaged, *one) for one in BROKEN]
    kept = [place(damaged, i, n) for i in range(3) for n in range(4) if (i, n) not in BROKEN]
    assert files_of(dataset.train) == kept
    head, *lines = dataset.broken.splitlines()
    assert head.endswith(': 4 of 12 images are left out: path, reason, number')
    rows = [line.split('\t') for line in lines]
    assert [row[0] for row in rows] == wanted and [row[2] for row in rows] == ['1', '3', '4', '10']
    same = 'expected an image of one identity. Received: the same bytes as {} of {}'
    assert rows[0][1] == same.format(wanted[3], faces.name(2))
    assert rows[3][1] == same.format(wanted[0], faces.name(0))
    assert rows[1][1] == 'expected an image. Received: an empty file'
    assert rows[2][1].startswith('expected an image that can be decoded. Received: ')


def test_more_than_accepted_is_one_line_with_the_first(damaged):
    os.remove(place(damaged, 0, 1))
    with pytest.raises(ValueError) as caught:
        load(damaged, max_broken=1)
    assert str(caught.value) == (
        f'{place(damaged, 0, 3)}: expected an image. Received: an empty file '
        '(the first of 2 broken images, more than --max_broken=1)'
    )


def test_an_unreadable_file_is_a_broken_image(tmp_path):
    """A link to nothing has the name of an image."""
    faces.write(tmp_path, 2, 2)
    os.symlink('nothing', place(tmp_path, 1, 7))
    with pytest.raises(ValueError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f'{place(tmp_path, 1, 7)}: expected an image. Received: No such file or directory '
        '(the first of 1 broken images, more than --max_broken=0)'
    )


def test_equal_images_of_one_identity_are_fine(tmp_path):
    faces.write(tmp_path, 2, 2)
    shutil.copy(place(tmp_path, 0, 1), place(tmp_path, 0, 8))
    assert len(load(tmp_path).train) == 5


def test_the_list_of_the_run_replaces_the_check(damaged, monkeypatch):
    """Also when fewer are accepted, or no check is asked for: what is left out decides the run."""
    dataset = load(damaged, max_broken=4)
    monkeypatch.setattr(checking, 'examined', None)
    for changes in ({'max_broken': 0}, {'check_images': False}):
        again = load(damaged, broken=dataset.broken, **changes)
        assert again.broken == dataset.broken and again.facts() == dataset.facts()


def test_the_list_of_other_data_does_not(damaged, tmp_path):
    known = load(damaged, max_broken=4).broken
    os.remove(place(damaged, 2, 3))
    dataset = load(damaged, max_broken=4, broken=known)
    assert dataset.broken != known and len(dataset.train) == 7


def test_an_altered_list_is_refused(damaged):
    known = load(damaged, max_broken=4).broken
    with pytest.raises(ValueError, match='^broken.txt: expected numbers of images below 12. '):
        load(damaged, broken=known.replace('\t10\n', '\t12\n'))


def test_without_the_check_nothing_is_decoded(damaged, monkeypatch):
    monkeypatch.setattr(checking, 'examined', None)
    dataset = load(damaged, check_images=False)
    assert len(dataset.train) == 12 and dataset.broken == ''


def test_identities_that_lose_their_images_are_left_out_in_turn(tmp_path):
    """Of 2 images one is broken: with --min_images=2 the identity is none."""
    faces.write(tmp_path, 3, 2)
    open(place(tmp_path, 1, 0), 'wb').close()
    dataset = load(tmp_path, max_broken=1, min_images=2)
    assert dataset.names == (faces.name(0), faces.name(2))
    with pytest.raises(ValueError, match='^--data_path: expected two identities or more'):
        load(tmp_path, max_broken=1, min_images=2, max_classes=2)


def test_copies_are_found_across_given_splits(tmp_path):
    """Of two identities, not of one: 1 in training and test is the same person."""
    for part in ('train', 'test'):
        faces.write(tmp_path / part, 2, 2)
    assert len(load(tmp_path, split='given').test) == 4
    shutil.copy(place(tmp_path / 'train', 0, 1), place(tmp_path / 'test', 1, 5))
    dataset = load(tmp_path, split='given', max_broken=3)
    assert len(dataset.train) == 3 and len(dataset.test) == 3
    assert [line.split('\t')[2] for line in dataset.broken.splitlines()[1:]] == ['1', '5', '8']


def test_copies_agree_with_a_search_over_all_pairs(monkeypatch):
    """40 images of 6 different contents and 4 identities; the other one is the first of all with
    equal bytes and another label.
    """
    random = np.random.RandomState(3)
    contents, labels = random.randint(0, 30, 40), random.randint(0, 4, 40)
    wanted = {}
    for index in range(40):
        others = np.flatnonzero((contents == contents[index]) & (labels != labels[index]))
        if len(others):
            wanted[index] = others[0]
    digests = random.randint(0, 256, (30, 20)).astype(np.uint8)[contents]
    assert 0 < len(wanted) < 40
    assert dict(checking.mislabelled(digests, labels)) == wanted
    assert checking.mislabelled(digests[:0], labels[:0]) == []


def test_a_long_check_says_where_it_is(tmp_path, monkeypatch):
    """With no silence allowed, after each of the 4 images; and once at the end."""
    faces.write(tmp_path, 2, 2)
    said = []
    monkeypatch.setattr(log, 'info', lambda text, *values: said.append(text % values))
    monkeypatch.setattr(checking, 'SILENCE', -1.0)
    load(tmp_path)
    assert said[:4] == [f'checked {n} of 4 images, 0 broken' for n in range(1, 5)]
    assert len(said) == 5 and said[4].startswith('checked 4 images in ')
