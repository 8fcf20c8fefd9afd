"""Commands whose standard streams are closed, full or abandoned, and whose surroundings are bad."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import toys
from gitloss.errors import OptionError
from trainers import options as options_module
from trainers import streams

NO_TENSORFLOW = [
    ('trainers.run', '--help', 0),
    ('trainers.launch', '--help', 0),
    ('trainers.run', '--steps=x', 2),
    ('trainers.launch', '--workers=x', 2),
]


def start(module, *arguments, closed=(), **streams_and_more):
    """A command with standard streams of which those in `closed`, by number, are closed."""

    def close():
        # A shell ignores it in what it starts in the background, such as a test run.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in closed:
            os.close(number)

    environment = dict(os.environ, PYTHONPATH=options_module.ROOT)
    environment.update(streams_and_more.pop('env', {}))
    return subprocess.Popen(
        [sys.executable, '-m', module, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=close,
        **dict({'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}, **streams_and_more),
    )


def end(process):
    """(status, stdout, stderr)"""
    out, err = process.communicate(timeout=240)
    return (process.returncode, (out or b'').decode(), (err or b'').decode())


@pytest.fixture
def no_reader():
    """The end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize('module', ['trainers.run', 'trainers.launch'])
def test_the_help_needs_no_docstrings(module, monkeypatch, capsys):
    """As with python -OO, which drops them."""
    command = importlib.import_module(module)
    monkeypatch.setattr(command, '__doc__', None)
    with contextlib.suppress(SystemExit):  # of argparse
        assert command.main(['--help']) == 0
    out, err = capsys.readouterr()
    assert out.startswith('usage: python -m ' + module) and 'None' not in out and err == ''


@pytest.mark.parametrize('module, argument, status', NO_TENSORFLOW)
def test_a_closed_stream_changes_no_status(module, argument, status):
    """Also where both are closed: nothing can be said then, and the status says it."""
    for closed in ([0, 1, 2], [2], [1]):
        found, _, err = end(start(module, argument, closed=closed))
        assert (found, 'Traceback' in err) == (status, False), err
    assert status == 0 or err.startswith(module + ': ') and err.count('\n') == 1


@pytest.mark.parametrize('module, argument, status', NO_TENSORFLOW)
def test_a_full_stream_is_one_line_or_none(module, argument, status):
    """A help text that cannot be written is an error; where stderr is full, nothing can be said."""
    with open('/dev/full', 'wb') as full:
        found, _, err = end(start(module, argument, stdout=full))
        said = f'{module}: stdout: expected a stream that can be written. Received: No space left'
        assert (found, err.count('\n')) == (2, 1)
        assert err.startswith(said if status == 0 else module + ': ')
        assert end(start(module, argument, stderr=full))[0] == status


@pytest.mark.parametrize('module, argument, status', NO_TENSORFLOW)
def test_a_reader_that_has_enough_is_no_error(module, argument, status, no_reader):
    """As `command | head -1`: 141 is the status that shells give a program after SIGPIPE."""
    assert end(start(module, argument, stdout=no_reader)) == (
        (141, '', '') if status == 0 else (2, '', end(start(module, argument))[2])
    )
    assert end(start(module, argument, stderr=no_reader))[0] == status


def test_a_training_without_any_stream_is_whole(tmp_path):
    """A file opened later must not get the number of a closed stream: TensorFlow would print into
    it.
    """
    settings = toys.options(tmp_path, steps=4, evaluate=False, model='mnist_cnn')
    process = start('trainers.run', *toys.flags_of(settings), closed=[0, 1, 2])
    assert end(process)[0] == 0
    with open(os.path.join(settings.run_dir, 'results.json')) as file:
        assert json.load(file)['final']['step'] == 4


def test_text_beyond_the_encoding_of_a_stream_is_escaped(capsys, monkeypatch):
    class Ascii:
        errors = 'strict'

        def reconfigure(self, errors):
            self.errors = errors

    out = Ascii()
    monkeypatch.setattr(sys, 'stdout', out)
    streams.ensure()
    assert out.errors == 'backslashreplace'


def test_folders_that_tensorflow_cannot_name_are_refused_at_the_start(tmp_path, monkeypatch):
    """Bytes that are not UTF-8 in the locale of the process are surrogates in Python's text."""
    with pytest.raises(OptionError, match='^--exp_save_dir: expected text in UTF-8, and a locale'):
        options_module.Options(exp_save_dir=os.fsdecode(b'/tmp/\xe6'))
    monkeypatch.chdir(tmp_path)
    os.mkdir(b'\xe6')
    os.chdir(b'\xe6')
    with pytest.raises(OptionError, match='^--exp_save_dir: expected a path in UTF-8'):
        options_module.Options(exp_save_dir='run').run_dir  # noqa: B018


def test_a_working_folder_that_is_gone_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir('gone')
    os.chdir('gone')
    os.rmdir(str(tmp_path / 'gone'))
    assert options_module.Options(exp_save_dir='/a/b').run_dir == '/a/b'
    with pytest.raises(OptionError) as caught:
        options_module.Options(exp_save_dir='run').run_dir  # noqa: B018
    assert str(caught.value) == (
        '--exp_save_dir: expected an absolute path, since the working folder is gone. Received: run'
    )


def test_ctrl_c_during_the_imports_is_silent(tmp_path):
    """The import of TensorFlow takes seconds. SIGINT comes as soon as its library is mapped."""
    settings = toys.options(tmp_path, model='mnist_cnn')
    process = start('trainers.run', *toys.flags_of(settings))
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with open(f'/proc/{process.pid}/maps') as file:
            if 'tensorflow' in file.read():
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert end(process) == (-signal.SIGINT, '', '')
    assert not os.path.exists(settings.run_dir)


@pytest.mark.parametrize('name, said', [('other', 'shut down'), (streams.UNFINISHED, '')])
def test_a_process_with_an_unfinished_thread_ends_at_once(name, said):
    """The shutdown of the interpreter, in which such a thread would abort the process, calls the
    functions of atexit.
    """
    program = (
        'import atexit, threading, time; from trainers import streams; '
        'atexit.register(print, "shut down", end=""); '
        f'threading.Thread(target=time.sleep, args=(60,), name="{name}", daemon=True).start(); '
        'streams.leave(3)'
    )
    result = subprocess.run(
        [sys.executable, '-c', program],
        cwd=options_module.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (result.returncode, result.stdout) == (3, said)
