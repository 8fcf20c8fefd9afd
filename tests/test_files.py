"""Files of the run, where others have put something in the way."""

import os

import pytest

from gitloss import files


def test_a_temporary_link_is_replaced_not_followed(tmp_path):
    """`a.tmp` leads to the user's file. It keeps its content, and `a` becomes a plain file."""
    mine, path = tmp_path / 'mine', tmp_path / 'a'
    mine.write_text('mine')
    os.symlink(str(mine), str(path) + '.tmp')
    files.write_atomically(str(path), 'ours')
    assert (mine.read_text(), path.read_text()) == ('mine', 'ours')
    assert not path.is_symlink() and sorted(os.listdir(str(tmp_path))) == ['a', 'mine']


def test_a_folder_of_the_temporary_name_is_an_error_and_stays(tmp_path):
    (tmp_path / 'a.tmp').mkdir()
    with pytest.raises(OSError, match='a'):
        files.write_atomically(str(tmp_path / 'a'), 'ours')
    assert (tmp_path / 'a.tmp').is_dir() and not (tmp_path / 'a').exists()


@pytest.mark.parametrize('kind', ['fifo', 'device', 'folder', 'large'])
def test_only_regular_files_of_a_sane_size_are_read(tmp_path, kind):
    """A FIFO has no writer, and /dev/zero no end: neither may make the reader wait."""
    path = str(tmp_path / 'a')
    if kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'device':
        os.symlink('/dev/zero', path)
    elif kind == 'folder':
        os.mkdir(path)
    else:
        with open(path, 'wb') as file:
            file.write(bytes(11))
    with pytest.raises(OSError, match=r'not a regular file|more than 10 bytes|directory'):
        files.read(path, limit=10)


def test_ten_bytes_of_ten_are_read_also_through_a_link(tmp_path):
    (tmp_path / 'a').write_bytes(b'0123456789')
    os.symlink(str(tmp_path / 'a'), str(tmp_path / 'b'))
    assert files.read(str(tmp_path / 'b'), limit=10) == b'0123456789'


@pytest.mark.parametrize('kind', ['link', 'fifo'])
def test_append_takes_plain_files_only(tmp_path, kind):
    path, target = str(tmp_path / 'a'), tmp_path / 'mine'
    target.write_text('mine')
    os.symlink(str(target), path) if kind == 'link' else os.mkfifo(path)
    with pytest.raises(OSError):
        files.append(path)
    assert target.read_text() == 'mine'


def test_append_creates_and_continues(tmp_path):
    for text in ('a', 'b'):
        with files.append(str(tmp_path / 'log')) as file:
            file.write(text)
    assert (tmp_path / 'log').read_text() == 'ab'


def test_a_reader_reads_any_part_of_the_file_that_it_opened(tmp_path):
    """Also after the file is replaced; beyond the end there is nothing."""
    path = tmp_path / 'a'
    path.write_bytes(b'0123456789')
    reader = files.Reader(str(path))
    path.unlink()
    path.write_bytes(b'other')
    assert reader.size == 10 and reader.read(3, 4) == b'3456'
    assert reader.read(8, 4) == b'89' and reader.read(2**63 - 1, 4) == b''
    with pytest.raises(OSError, match='not a regular file'):
        files.Reader(str(tmp_path))
