"""Lists of images: paths, labels, quotes, what is refused."""

import numpy as np
import pytest

from gitloss.data.listing import line, open_list
from portraits import SHAPE, drawn, identities, write

LISTS = {
    'tabs': 'a/0.png\tanna\na/1.png\tanna\nb/0.png\tbob\n',
    'spaces': 'a/0.png anna\r\n  a/1.png   anna \n\n# b/1.png bob\nb/0.png bob',
    'quotes': '\ufeff"a/0.png" anna\n"a/1.png" anna\n"b/0.png" "bob"\n',
}


@pytest.mark.parametrize('kind', sorted(LISTS))
def test_a_list_names_paths_and_labels(here, kind):
    write('faces', ['a', 'b'], 2)
    (here / 'faces' / 'train.list').write_text(LISTS[kind], encoding='utf-8')
    source = open_list('faces/train.list', SHAPE)
    assert source.names == ['anna', 'bob'] and source.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(source.read(np.arange(3)), [drawn(0), drawn(0, 1), drawn(1)])
    assert source.where(2) == 'faces/b/0.png'


def test_paths_of_a_list_may_be_absolute_and_numbers_are_sorted_by_value(here):
    write('faces', ['a'], 3)
    lines = [f'{here}/faces/a/{number}.png {label}\n' for number, label in enumerate((10, 9, 10))]
    (here / 'list').write_text(''.join(lines))
    source = open_list('list', SHAPE)
    assert source.names == ['9', '10'] and source.labels.tolist() == [1, 0, 1]
    assert source.read(np.arange(3)).shape == (3, *SHAPE)


NAMES = [
    'plain',
    'with space',
    'tab\there',
    '# hash',
    '"quoted"',
    " led 'and' trailed ",
    'ü\r',
    '\udcff',
]


def test_a_line_is_read_back_whatever_the_names(here):
    pairs = [(name + '.png', name) for name in NAMES] + [(name, name) for name in NAMES]
    text = ''.join(line(*pair) for pair in pairs)
    (here / 'list').write_bytes(text.encode('utf-8', 'surrogateescape'))
    source = open_list('list', SHAPE)
    assert list(identities(source).items()) == pairs
    for pair in (('a\nb', 'c'), ('', 'c'), ('a', ''), ('a\0', 'c')):
        with pytest.raises(ValueError, match='^list: expected a path and a label of one line'):
            line(*pair)


@pytest.mark.parametrize(
    'text, number',
    [
        ('a.png x\nb.png\n', 2),
        ('# paths\na.png x y\n', 2),
        ('a.png\tx\nb.png\t\n', 2),
        ('"a.png x\n', 1),
        ('"a"b x\n', 1),
        ('a.png\0 x\n', 1),
        ('a.png\tx\tb\n', 1),
    ],
)
def test_lines_of_another_form_are_named(here, text, number):
    (here / 'list').write_text(text)
    with pytest.raises(ValueError, match=f'^list, line {number}: expected a path and a label'):
        open_list('list', SHAPE)


def test_a_list_of_nothing_is_refused_one_of_one_identity_is_not(here):
    """A split may have a single identity."""
    (here / 'list').write_text('# nothing\n\n')
    with pytest.raises(ValueError, match='^list: expected images. Received: none'):
        open_list('list', SHAPE)
    (here / 'list').write_text('a x\nb x\n')
    assert open_list('list', SHAPE).names == ['x']


def test_a_list_that_is_a_folder_is_an_error(here):
    with pytest.raises(OSError, match='not a regular file'):
        open_list('.', SHAPE)
