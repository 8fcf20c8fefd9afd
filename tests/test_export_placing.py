"""A folder has its earlier export or the new one, wherever the move between them breaks off."""

import errno
import json
import os

import pytest

from runs import content
from trainers.exporting import placing

NOTES = {'notes.txt': b'mine'}
# Those of gitloss.json, MODEL.md, gitloss.pb, saved_model and labels.txt leave, no gitloss.onnx
# does; four files come.
RENAMES = 6 + 4


def write_export(folder, text, *others):
    """Writes what stands for an export of gitloss.pb and others, {format: path of its file}."""
    files = dict(others, pb='gitloss.pb')
    listed = {name: {'file': path, 'sha256': '0'} for name, path in files.items()}
    manifest = json.dumps({'formats': listed, 'checkpoint': {'files': {'of': text}}})
    for path in (*files.values(), 'MODEL.md'):
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        with open(os.path.join(folder, path), 'w') as file:
            file.write(text)
    with open(os.path.join(folder, 'gitloss.json'), 'w') as file:
        file.write(manifest)


def write_new(folder):
    write_export(folder, 'new', ('onnx', 'gitloss.onnx'))


@pytest.fixture
def folder(tmp_path):
    """A folder with an export and a file of somebody else."""
    write_export(str(tmp_path), 'earlier', ('saved_model', 'saved_model/saved_model.pb'))
    (tmp_path / 'labels.txt').write_text('names')
    (tmp_path / 'notes.txt').write_bytes(NOTES['notes.txt'])
    return str(tmp_path)


@pytest.fixture
def new(tmp_path_factory):
    """{relative path: bytes} of the folder once the new export is in it."""
    path = str(tmp_path_factory.mktemp('new'))
    write_new(path)
    return {**content(path), **NOTES}


class Killed(BaseException):
    pass


@pytest.fixture
def broken(monkeypatch):
    """A function: after `count` renames the next one raises an error."""
    rename = os.rename

    def install(count, error):
        left = iter(range(count))

        def limited(source, target):
            if next(left, None) is None:
                raise error
            rename(source, target)

        monkeypatch.setattr(os, 'rename', limited)

    return install


def started(folder):
    """A context of `inside` that is never left, as in a killed process, and what it raised."""
    context = placing.inside(folder)
    try:
        temporary = context.__enter__()
        write_new(temporary)
        placing.move(temporary, folder)
    except Killed:
        pass
    return context


def test_a_new_export_takes_the_place_of_the_earlier_one(folder, new):
    with placing.inside(folder) as temporary:
        write_new(temporary)
        placing.move(temporary, folder)
    assert content(folder) == new


@pytest.mark.parametrize('count', range(RENAMES + 1))
def test_a_kill_leaves_the_earlier_export_or_the_new_one(folder, new, broken, count):
    """Also a second kill, while the earlier one comes back. Meanwhile a gitloss.json is there only
    with a whole export.
    """
    earlier, contexts = content(folder), []
    for renames in (count, count // 2):
        broken(renames, Killed)
        contexts.append(started(folder))
        now = {path: text for path, text in content(folder).items() if path[0] != '.'}
        assert 'gitloss.json' not in now or now in (earlier, new)
    broken(1000, Killed)
    with placing.inside(folder):
        found = content(folder)
    assert found == (earlier if count < RENAMES else new)
    assert content(folder) == found


def test_an_error_leaves_the_earlier_export(folder, monkeypatch):
    """The disk refuses the last file of the new one, and takes those that come back."""
    rename, earlier = os.rename, content(folder)

    def failing(source, target):
        if source.endswith('.gitloss_export/gitloss.json'):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        rename(source, target)

    monkeypatch.setattr(os, 'rename', failing)
    with pytest.raises(OSError, match='No space left'), placing.inside(folder) as temporary:
        write_new(temporary)
        placing.move(temporary, folder)
    assert content(folder) == earlier
