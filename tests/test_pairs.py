"""The formats of pairs: pairs.txt of LFW, lists, the folders of CFP."""

import os

import numpy as np
import pytest

from gitloss.data.pair_images import open_images
from gitloss.data.pairs import read_pairs
from portraits import drawn
from portraits import encoded as file_of

LFW = """2\t2
Ann\t1\t2
Bo_Li\t3\t1
Ann\t1\tBo_Li\t1
Bo_Li\t2\tAnn\t2
Cy\t1\t2
Cy\t1\t3
Cy\t4\tDee\t1
Cy\t4\tDee\t12
"""


def encoded(number=0):
    return file_of(drawn(1, number))


def written(folder, text, name='pairs.txt'):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def told(pairs):
    names = [(pairs.names[a], pairs.names[b]) for a, b in zip(pairs.first, pairs.second)]
    return [(*pair, bool(same)) for pair, same in zip(names, pairs.genuine)]


def test_pairs_of_lfw(tmp_path):
    """Two folds of two genuine and two impostor pairs; images have four digits at least."""
    pairs = read_pairs(written(tmp_path, LFW))
    assert told(pairs)[:3] == [
        ('Ann/Ann_0001', 'Ann/Ann_0002', True),
        ('Bo_Li/Bo_Li_0003', 'Bo_Li/Bo_Li_0001', True),
        ('Ann/Ann_0001', 'Bo_Li/Bo_Li_0001', False),
    ]
    assert told(pairs)[-1] == ('Cy/Cy_0004', 'Dee/Dee_0012', False)
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    people = [pairs.people[i] for i in pairs.first]
    assert people == ['Ann', 'Bo_Li', 'Ann', 'Bo_Li'] + ['Cy'] * 4
    identities = pairs.identities()
    assert ((identities[:, 0] == identities[:, 1]) == pairs.genuine).all()


def test_a_file_of_one_fold_has_none(tmp_path):
    """pairsDevTest.txt begins with one number. Its pairs are dealt to folds of both kinds."""
    pairs = read_pairs(written(tmp_path, '1\nAnn\t1\t2\nAnn\t1\tBo\t1\n'))
    assert pairs.folds is None and sorted(pairs.split(2)) == [0, 1]


@pytest.mark.parametrize('separator', [' ', '\t', '  '])
def test_a_list(tmp_path, separator):
    """Quotes hold a separator, comments and empty lines are nothing, the folder is the person."""
    rows = [('ann/1.jpg', '"ann/2 b.jpg"', '1', '7'), ('ann/1.jpg', 'bö/1.jpg', '0', '8')]
    text = '\ufeff# mine\n\n' + '\n'.join(separator.join(row) for row in rows) + '\n'
    pairs = read_pairs(written(tmp_path, text))
    assert told(pairs) == [('ann/1.jpg', 'ann/2 b.jpg', True), ('ann/1.jpg', 'bö/1.jpg', False)]
    assert pairs.folds.tolist() == [7, 8] and list(pairs.people) == ['ann', 'ann', 'bö']


@pytest.mark.parametrize('text', ['1.jpg 2.jpg 1\n', 'a/1 a/2 0\n', 'a/1 b/1 1\n'])
def test_folders_that_are_no_people_tell_nothing_of_people(tmp_path, text):
    pairs = read_pairs(written(tmp_path, text))
    assert pairs.people is None and pairs.identities() is None and pairs.split() is None


def cfp(folder):
    """A frontal and a profile list of two people with two images, and two folds of FP and FF."""
    for kind, word in (('F', 'frontal'), ('P', 'profile')):
        lines = [
            f'{2 * person + i - 2} ../Data/Images/{person:03}/{word}/{i:02}.jpg'
            for person in (1, 2)
            for i in (1, 2)
        ]
        written(folder, '\n'.join(lines), f'cfp/Protocol/Pair_list_{kind}.txt')
    for kind in ('FF', 'FP'):
        for fold in ('01', '02'):
            place = f'cfp/Protocol/Split/{kind}/{fold}'
            written(folder, '1,2\n3,4\n', place + '/same.txt')
            written(folder, '1,3\n2, 4\n', place + '/diff.txt')
    return str(folder / 'cfp')


def test_the_protocol_of_cfp(tmp_path):
    pairs = read_pairs(cfp(tmp_path) + '/Protocol/Split/FP/')
    images = 'Data/Images/{:03}/{}/{:02}.jpg'.format
    assert told(pairs)[:3] == [
        (images(1, 'frontal', 1), images(1, 'profile', 2), True),
        (images(2, 'frontal', 1), images(2, 'profile', 2), True),
        (images(1, 'frontal', 1), images(2, 'profile', 1), False),
    ]
    assert pairs.folds.tolist() == [1] * 4 + [2] * 4 and set(pairs.people) == {'001', '002'}


@pytest.mark.parametrize(
    'text, word',
    [
        ('', 'expected pairs of images. Received: none'),
        ('a b\n', 'line 1: expected two images and 0 or 1'),
        ('a b 1\na b 2\n', 'line 2: expected two images and 0 or 1'),
        ('a b 1 x\n', 'line 1: expected a fold'),
        ('a b 1\na b 1 0\n', 'line 2: expected two images'),
        ('a "b 1\n', 'line'),
        ('2\t2\nAnn\t1\t2\n', 'expected 8 pairs, as line 1 says. Received: 1'),
        ('1\t1\nAnn\t1\tx\nAnn\t1\tBo\t1\n', 'line 2: expected `name i j`'),
        ('1\t1\n../Ann\t1\t2\nAnn\t1\tBo\t1\n', 'line 2: expected `name i j`'),
        ('a\0b c 1\n', 'line'),
    ],
)
def test_another_format_is_one_line_with_its_number(tmp_path, text, word):
    path = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(path) and word in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_folder_that_is_no_protocol(tmp_path):
    with pytest.raises(ValueError, match='Protocol/Split/FF or FP of CFP. Received: Split$'):
        read_pairs(cfp(tmp_path) + '/Protocol/Split')
    (tmp_path / 'cfp/Protocol/Split/FF/01/same.txt').write_text('1,9\n')
    with pytest.raises(ValueError, match='same.txt, line 1: expected i,j of 4 and 4 images'):
        read_pairs(str(tmp_path / 'cfp/Protocol/Split/FF'))


def test_images_are_found_with_and_without_an_extension(tmp_path):
    for name in ('Ann/Ann_0001.png', 'Ann/Ann_0002.JPG', 'Bo/Bo_0001.png'):
        written(tmp_path, encoded(), name)
    path = written(tmp_path, '1\nAnn\t1\t2\nAnn\t1\tBo\t1\n')
    source = open_images(read_pairs(path), path, '', (8, 8, 1))
    assert source.images(np.arange(3)).shape == (3, 8, 8, 1)
    os.remove(str(tmp_path / 'Bo' / 'Bo_0001.png'))
    with pytest.raises(ValueError, match=r"Received: 1 missing, the first is \['Bo/Bo_0001'\]"):
        open_images(read_pairs(path), path, '', (8, 8, 1))


def test_the_images_of_cfp_are_beside_its_protocol(tmp_path):
    root = cfp(tmp_path)
    for person in ('001', '002'):
        for kind in ('frontal', 'profile'):
            for name in ('01.jpg', '02.jpg'):
                place = f'cfp/Data/Images/{person}/{kind}/{name}'
                written(tmp_path, encoded(), place)
    path = root + '/Protocol/Split/FF'
    assert len(open_images(read_pairs(path), path, '', (8, 8, 3))) == 4
