"""The cases of bad_input.py, and bad input as the user meets it: through the commands."""

import collections
import gzip
import io
import json
import os
import shutil
import struct

import numpy as np
import pytest

import toys
from bad_input import CASES
from damage.cases import Evil, alarmed, logging_to, try_case, write
from damage.manifests import DATA, INDEX, MANIFEST, put, resign, rewrite
from damage.npz import arrays, npy, npz
from damage.resumed import stopped_run
from trainers import checkpoints, evaluate, export, options, run


@pytest.mark.parametrize('case', CASES, ids=['{}: {}'.format(*case[:2]) for case in CASES])
def test_bad_input_is_refused_clearly_or_read_rightly(case, tmp_path):
    try_case(case, tmp_path)


def test_there_are_hundreds_of_cases_of_every_kind():
    kinds = collections.Counter(case.kind for case in CASES)
    assert len(CASES) >= 300 and len({case[:2] for case in CASES}) == len(CASES)
    assert min(kinds.values()) >= 5, kinds


# --- the same as the user meets it ----------------------------------------------------------------


def _ends_in_one_line(arguments, capsys, word, command=run):
    assert command.main(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == '' and len(lines) == 1 and 'Traceback' not in err
    assert lines[0].startswith(command.__name__ + ': ') and word in lines[0]


def _corrupt_images(settings):
    header = struct.pack('>BBBB3I', 0, 0, 8, 3, *[(1 << 32) - 1] * 3)
    write(settings.data_path, {'train-images-idx3-ubyte.gz': gzip.compress(header)})


def _pickled(settings):
    Evil.folder = settings.data_path
    write(
        settings.data_path,
        {'mnist.npz': npz([(name + '.npy', npy(np.array([Evil()]), True)) for name in arrays()])},
    )


@pytest.mark.parametrize(
    'spoil, word', [(_corrupt_images, 'train-images-idx3-ubyte.gz'), (_pickled, 'mnist.npz')]
)
def test_bad_data_through_the_command(tmp_path, capsys, spoil, word):
    settings = toys.options(tmp_path)
    spoil(settings)
    _ends_in_one_line(toys.flags_of(settings), capsys, word)
    assert sorted(os.listdir(str(tmp_path))) == ['data'] and Evil.MARK not in os.listdir(
        settings.data_path
    )


@pytest.mark.parametrize(
    'content, word',
    [
        (b'--model=a\0b', '--model'),
        (b'--steps=' + b'9' * 9000, '--steps'),
        (b'\xff' * 50, '--flagfile'),
        (b'--batch_size=\n', '--batch_size'),
    ],
)
def test_a_bad_flag_file_through_the_command(tmp_path, capsys, content, word):
    write(str(tmp_path), {'a.cfg': content})
    _ends_in_one_line([f'--flagfile={tmp_path / "a.cfg"}'], capsys, word)


def _history_of_a_number(path):
    rewrite(path, put('callbacks', 'History', 7))


def _weights_of_noise(path):
    with open(os.path.join(path, DATA), 'r+b') as file:
        file.write(b'\xff' * 4000)
    resign(path)


@pytest.fixture
def copied(tmp_path):
    """(options, folder) of a copy of the run that ended with the checkpoints of steps 4 and 6."""
    folder = str(tmp_path / 'run')
    shutil.copytree(stopped_run()[0].run_dir, folder)
    return options.Options.restored(stopped_run()[0].as_dict(), exp_save_dir=folder), folder


@pytest.mark.parametrize('spoil', [_history_of_a_number, _weights_of_noise])
def test_a_bad_checkpoint_through_the_command(copied, capsys, spoil):
    """The run's newest checkpoint is damaged but has a correct digest: nothing is trained, and no
    file of the run is touched.
    """
    settings, folder = copied
    spoil(os.path.join(folder, 'ckpt', 'step-00000006'))
    kept = sorted(os.listdir(folder))
    _ends_in_one_line(toys.flags_of(settings), capsys, 'step-00000006')
    assert sorted(os.listdir(folder)) == kept


# --- what is no file ------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize('kind', ['fifo', 'device'])


def _instead_of(path, kind):
    """Puts a FIFO without a writer, or a link to an endless device, in the place of a file."""
    if os.path.lexists(path):
        os.remove(path)
    os.mkfifo(path) if kind == 'fifo' else os.symlink('/dev/zero', path)


@pytest.fixture
def no_hang():
    with alarmed('the test'):
        yield


@KINDS
@pytest.mark.parametrize(
    'name', ['train-images-idx3-ubyte.gz', 't10k-labels-idx1-ubyte', 'SHA256SUMS', 'mnist.npz', '']
)
def test_data_that_is_no_file_through_the_command(tmp_path, capsys, no_hang, name, kind):
    """Nothing waits for a writer or reads an endless device: one line names the file."""
    settings = toys.options(tmp_path)
    path = os.path.join(settings.data_path, name) if name else str(tmp_path / 'data-set')
    _instead_of(path, kind)
    flags = toys.flags_of(settings) + ([] if name else ['--data_path=' + path])
    _ends_in_one_line(flags, capsys, path)
    assert not os.path.exists(settings.run_dir)


@KINDS
def test_a_flag_file_or_callbacks_that_are_no_files(tmp_path, capsys, no_hang, kind):
    settings = toys.options(tmp_path)
    path = str(tmp_path / 'a.py')
    _instead_of(path, kind)
    _ends_in_one_line(['--flagfile=' + path], capsys, path)
    flags = toys.flags_of(settings) + [f'--callbacks={path}:made']
    _ends_in_one_line(flags, capsys, path)


@KINDS
@pytest.mark.parametrize('name', [MANIFEST, DATA, INDEX])
def test_files_of_a_run_that_are_no_files(copied, capsys, no_hang, name, kind):
    """A checkpoint with such a file is none: the one before, of step 4, serves. The commands that
    are given it end in one line.
    """
    settings, folder = copied
    checkpoint = os.path.join(folder, 'ckpt', 'step-00000006')
    _instead_of(os.path.join(checkpoint, name), kind)
    given = ['--ckpt_path=' + checkpoint]
    _ends_in_one_line(given, capsys, checkpoint, export)
    _ends_in_one_line(given + ['--data_path=' + settings.data_path], capsys, checkpoint, evaluate)
    store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
    with logging_to(io.StringIO()) as lines:
        assert store.newest(checkpoints.TO_CONTINUE).step == 4
    assert lines.getvalue().count('\n') == 1 and checkpoint in lines.getvalue()


@KINDS
def test_a_manifest_that_is_no_file_through_evaluate_and_fine_tuning(
    copied, tmp_path, capsys, no_hang, kind
):
    """That of the best checkpoint, of step 4: given by name it is one line; given the run, the
    newest serves. Without that one, too, one line names it.
    """
    settings, folder = copied
    best, newest = (os.path.join(folder, 'ckpt', f'step-0000000{step}') for step in (4, 6))
    data = ['--data_path=' + settings.data_path]
    new = [f'--exp_save_dir={tmp_path / "new"}', '--model=toy', '--steps=1', '--noevaluate']
    new += ['--device=cpu']
    assert checkpoints.find(folder, '--ckpt_path').path == best
    _instead_of(os.path.join(best, MANIFEST), kind)
    _ends_in_one_line(data + ['--ckpt_path=' + best], capsys, best, evaluate)
    _ends_in_one_line(data + new + ['--init_checkpoint=' + best], capsys, best)
    assert evaluate.main(data + ['--device=cpu', '--ckpt_path=' + folder]) == 0
    assert json.loads(capsys.readouterr().out)['checkpoint'] == newest
    assert run.main(data + new + ['--init_checkpoint=' + folder]) == 0
    assert 'weights from ' + newest in capsys.readouterr().err
    _instead_of(os.path.join(newest, MANIFEST), kind)
    _ends_in_one_line(data + ['--ckpt_path=' + folder], capsys, newest, evaluate)
    new[0] += 'er'
    _ends_in_one_line(data + new + ['--init_checkpoint=' + folder], capsys, newest)


@KINDS
def test_a_manifest_that_is_no_file_in_a_resumed_run(copied, capsys, no_hang, kind):
    """The run goes on from step 4 and ends at step 8; a line names the checkpoint that it passes
    over.
    """
    settings, folder = copied
    checkpoint = os.path.join(folder, 'ckpt', 'step-00000006')
    _instead_of(os.path.join(checkpoint, MANIFEST), kind)
    assert run.main(toys.flags_of(settings)) == 0
    named = [line for line in capsys.readouterr().err.splitlines() if checkpoint in line]
    assert len(named) == 1 and 'passed over' in named[0] and 'not a regular file' in named[0]
    assert checkpoints.CheckpointStore(os.path.join(folder, 'ckpt')).newest().step == 8
