"""Embeddings of any origin, in .npz files."""

import gc
import zipfile

import numpy as np
import pytest

from gitloss.data.embedding_files import read_npz, rows_of
from gitloss.data.gallery import read_gallery


def saved(folder, **arrays):
    path = str(folder / 'e.npz')
    np.savez(path, **arrays)
    return path


def test_embeddings_of_any_origin(tmp_path):
    names, rows = np.array(['Ann/Ann_0001', 'Bo/Bo_0001']), np.eye(2, dtype=np.float32)
    found, embeddings = read_npz(saved(tmp_path, names=names, embeddings=rows))
    assert found == names.tolist() and (embeddings == rows).all()
    assert rows_of(found, ['Bo/Bo_0001.jpg', 'Ann/Ann_0001'], 'e').tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"none of 1, the first is \['Cy/Cy_0001'\]$"):
        rows_of(found, ['Cy/Cy_0001'], 'e')
    with pytest.raises(ValueError, match='e: expected different names'):
        rows_of(['a', 'a'], ['a'], 'e')


@pytest.mark.parametrize(
    'arrays, word',
    [
        ({'names': np.array(['a'])}, 'embeddings'),
        ({'names': np.array(['a']), 'embeddings': np.ones((2, 3))}, r'<U1 [1] and float64 [2, 3]'),
        ({'names': np.array([1]), 'embeddings': np.ones((1, 3))}, 'int64'),
        ({'names': np.array(['a']), 'embeddings': np.full((1, 3), np.nan)}, "the first is 'a'"),
        ({'names': np.array([{}]), 'embeddings': np.ones((1, 3))}, 'allow_pickle'),
        (
            {'names': np.array([1 << 25], '<u4').view('<U1'), 'embeddings': np.ones((1, 3))},
            'Unicode',
        ),
        ({'names': np.array([], str), 'embeddings': np.ones((0, 3))}, '[0, 3]'),
    ],
)
def test_other_arrays_are_one_line(tmp_path, arrays, word):
    with pytest.raises(ValueError) as caught:
        read_npz(saved(tmp_path, **arrays))
    assert word in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04junk', b'hello'])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, content):
    path = tmp_path / 'e.npz'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='expected an .npz file'):
        read_npz(str(path))


def test_an_archive_that_leads_outside_itself_is_one_line(tmp_path, capfd):
    """The end of an archive says where its list of members begins: far behind the end, where nobody
    can seek. Nothing is printed when it is deleted.
    """
    path = tmp_path / 'e.npz'
    saved(tmp_path, names=np.array(['a']), embeddings=np.ones((1, 3)))
    content = path.read_bytes()
    for place, value in ((-6, b'\xff' * 4), (-10, b'\xff' * 4), (-22, b'PK\5\7')):
        end = len(content) + place
        path.write_bytes(content[:end] + value + content[end + 4 :])
        with pytest.raises(ValueError, match=r'e\.npz: expected an .npz file'):
            read_npz(str(path))
    gc.collect()
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('name', ['names', 'embeddings', 'network'])
def test_a_member_that_is_no_array_is_one_line(tmp_path, name):
    path = tmp_path / 'e.npz'
    saved(tmp_path, names=np.array(['a']), embeddings=np.ones((1, 3)), network=np.array('x'))
    with zipfile.ZipFile(str(path)) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    with zipfile.ZipFile(str(path), 'w') as archive:
        for each, content in members.items():
            archive.writestr(each, b'no array' if each == name + '.npy' else content)
    with pytest.raises(ValueError, match=r'e\.npz: expected an .npz file .*magic'):
        read_gallery(str(path), 'x')
