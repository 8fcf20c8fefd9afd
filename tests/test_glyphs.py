"""benchmarks/glyphs.py without its fonts: the choice of characters, their split, the pairs, the
images (of a font that Matplotlib brings), and the commands that it calls.
"""

import collections
import json
import os
import sys

import matplotlib
import numpy as np
import pytest

from gitloss import data
from gitloss.data import conversion
from gitloss.data.pairs import read_pairs
from trainers.options import ROOT, parse

sys.path.append(os.path.join(ROOT, 'benchmarks'))
import glyph_data  # noqa: E402
import glyphs  # noqa: E402

DEJAVU = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
LATIN = {0x41: ['droid', 'kai'], 0x69: ['kai']}  # A in two fonts, i in one


def characters(count):
    """{code point: fonts}, every third character in all six fonts, the others in three."""
    names = list(glyph_data.FONTS)
    return {0x4E00 + n: names if n % 3 == 0 else names[1:4] for n in range(count)}


def source():
    return glyph_data.GlyphSource({'droid': DEJAVU, 'kai': DEJAVU}, LATIN)


def test_characters_that_at_least_three_fonts_have():
    """2 is in three of four fonts, 3 in all; 1 and 5 are in one."""
    maps = {'a': {1, 2, 3}, 'b': {3, 2}, 'c': {2, 3, 5}, 'd': {3}}
    found = glyph_data.common(maps)
    assert list(found.items()) == [(2, ['a', 'b', 'c']), (3, ['a', 'b', 'c', 'd'])]
    assert list(glyph_data.common(maps, 1)) == [1, 2, 3, 5]


def test_a_font_draws_what_has_an_outline():
    """The space is mapped to an empty glyph; U+4E00 and U+FFFF are not mapped."""
    assert glyph_data.drawable(DEJAVU, [0x20, 0x41, 0x69, 0x4E00, 0xFFFF]) == {0x41, 0x69}


def test_a_missing_font_is_named_with_its_package(tmp_path):
    first, *others = glyph_data.FONTS.values()
    for font in others:
        path = tmp_path / font.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')
    line = f'{first.path}: expected a font. Received: none: apt-get install {first.package}$'
    with pytest.raises(ValueError, match=line):
        glyph_data.font_paths(str(tmp_path))
    path = tmp_path / first.path
    path.write_bytes(b'')
    assert glyph_data.font_paths(str(tmp_path))['micro_hei'] == str(path)


def test_a_tenth_of_the_characters_is_the_test():
    codes = set(range(0x4E00, 0x4E00 + 105))
    train, test = glyph_data.dealt(codes)
    assert (len(train), len(test)) == (95, 10)  # 10.5 is rounded to the even number
    assert sorted(train + test) == sorted(codes) and train == sorted(train) and test == sorted(test)
    assert glyph_data.dealt(sorted(codes, reverse=True)) == (train, test)
    assert glyph_data.dealt(codes, seed=2) != (train, test)


def test_pairs_are_of_the_characters_of_one_fold_in_two_designs():
    """200 characters, of 3 or 6 fonts: each fold has 30 genuine pairs and as many impostors, which
    have the same first images and the same second fonts.
    """
    rows = glyph_data.pairs_of(characters(200), each=30)
    folds, seen = collections.defaultdict(set), collections.defaultdict(list)
    for first, second, is_genuine, fold in rows:
        (one, font), (two, other) = first.split('/'), second.split('/')
        assert (one == two) == bool(is_genuine)
        assert glyph_data.FONTS[font].design != glyph_data.FONTS[other].design
        assert all(
            font in characters(200)[int(x[2:], 16)] for x, font in ((one, font), (two, other))
        )
        seen[is_genuine].append((first, other, fold))
        folds[one].add(fold)
        folds[two].add(fold)
    assert seen[1] == seen[0] and len(seen[1]) == 300 == len(set(rows)) // 2
    assert all(len(each) == 1 for each in folds.values())
    assert set(folds) <= {glyph_data.identity(code) for code in characters(200)}


def test_no_pair_has_a_character_of_the_training(tmp_path):
    """The list is read with its folds, and its folders are taken for identities."""
    train, test = glyph_data.dealt(characters(300))
    rows = glyph_data.pairs_of({code: characters(300)[code] for code in test}, each=5)
    path = tmp_path / 'pairs.txt'
    path.write_text(''.join('\t'.join(map(str, row)) + '\n' for row in rows))
    pairs = read_pairs(str(path))
    assert not set(pairs.people) & {glyph_data.identity(code) for code in train}
    assert sorted(set(pairs.folds)) == list(range(10)) and len(pairs.genuine) == len(rows)


@pytest.mark.parametrize('code', LATIN)
def test_the_ink_is_in_the_middle(code):
    """The margins of both sides differ by one pixel at most: by the half that rounding moves it."""
    image = glyph_data.draw(glyph_data.opened(DEJAVU), code)
    assert image.shape == (32, 32) and image.dtype == np.uint8 and image.max() > 200
    for axis in (0, 1):
        ink = np.flatnonzero(image.any(axis=axis))
        assert 0 < ink[0] and abs(ink[0] - (31 - ink[-1])) <= 1
    with pytest.raises(ValueError, match='U[+]0020: expected a glyph. Received: an empty image'):
        glyph_data.draw(glyph_data.opened(DEJAVU), 0x20)


def test_images_are_drawn_to_equal_bytes_in_shards_and_folders(here):
    for number in '12':
        conversion.convert(source(), f'train{number}', 2, threads=1)
        glyph_data.write_folder(source(), f'test{number}')
    read = []
    for kind, name in (('tfrecord', 'train'), ('folder', 'test')):
        found = [data.IMAGES[kind].open(name + number, (32, 32, 1)) for number in '12']
        assert [each.names for each in found] == [['U+0041', 'U+0069']] * 2
        assert [each.labels.tolist() for each in found] == [[0, 0, 1]] * 2
        read += [each.read(np.arange(3)) for each in found]
        bytes_of = [[each.encoded(index) for index in range(3)] for each in found]
        assert bytes_of[0] == bytes_of[1]
    expected = [glyph_data.draw(glyph_data.opened(DEJAVU), code) for code in (0x41, 0x41, 0x69)]
    for each in read:
        np.testing.assert_array_equal(each[..., 0], expected)
    assert [found[0].name(index) for index in range(3)] == [
        'U+0041/droid',
        'U+0041/kai',
        'U+0069/kai',
    ]


def test_rank_1_has_one_font_as_its_gallery(tmp_path):
    """Gallery: (1, 0) for one character, (0, 1) for the other. Of each other font both are probes;
    kai alone takes the second for the first: 9 of 10 are right.
    """
    rows = {(who, font): np.eye(2)[who] for who in (0, 1) for font in glyph_data.FONTS}
    rows[1, 'kai'] = np.array([2.0, 1.0])
    names = np.array([f'U+4E0{who}/{font}' for who, font in rows])
    np.savez(str(tmp_path / 'e.npz'), names=names, embeddings=np.array(list(rows.values())))
    found = glyphs.identified(str(tmp_path / 'e.npz'))
    assert found.pop('rank-1') == 0.9 and found.pop('rank-1 kai') == 0.5
    assert found == {f'rank-1 {font}': 1.0 for font in ('micro_hei', 'droid', 'ukai', 'song')}


def test_flags_go_to_the_trainer_and_win(tmp_path, monkeypatch):
    """The trainer accepts them; with workers they go through the launcher."""
    calls = []
    monkeypatch.setattr(glyphs, 'command', lambda *call: calls.append(call))
    for workers in (1, 2):
        glyphs.train('images', 'images/a', workers, ['--steps=700'])
    run, embed, launch, _ = calls
    assert (run[0], embed[0], launch[0]) == ('trainers.run', 'trainers.embed', 'trainers.launch')
    assert launch[1:4] == ('--workers=2', '--log_dir=images/a-workers', '--')
    assert launch[4:] == run[1:]
    settings = parse(list(run[1:]), 'trainers.run')
    assert settings.steps == 700 and settings.data_path == 'images/train'


def test_the_table_has_a_row_for_each_run(tmp_path):
    figures = {'accuracy': 0.5, 'std': 0.25, 'eer': 0.125, 'tar': None, 'rank-1': 1.0}
    figures.update((f'rank-1 {font}', 0.75) for font in glyphs.PROBES)
    (tmp_path / 'a.json').write_text(json.dumps(figures))
    (tmp_path / 'a').mkdir()
    rates = '0.7500 | ' * 5
    assert glyphs.table(str(tmp_path))[2:] == [
        f'| a | 0.5000 +- 0.2500 | 0.1250 | undefined | 1.0000 | {rates.strip()}'
    ]


def test_a_flag_of_the_trainer_without_a_run_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['glyphs.py', '--out=x', '--steps=3'])
    with pytest.raises(SystemExit) as end:
        glyphs.main()
    assert end.value.code == 2
    assert 'flags: expected --run with them. Received: --steps=3' in capsys.readouterr().err
