"""--callbacks, and the example of docs/callbacks.md."""

import pathlib
import re

import pytest

import toys
from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.history import History
from callbacks.keras import KerasCallback
from gitloss import data
from gitloss.backend import keras
from survival import history
from toys import command
from trainers import callback_list, devices, plugins
from trainers.engine.trainer import Trainer

GUIDE = pathlib.Path(toys.options_module.ROOT, 'docs', 'callbacks.md')
MINE = """
from callbacks.base import Callback
from gitloss.backend import keras
from gitloss.metrics import Metric

class Plain(Callback):
    metrics = (Metric('score', 'score', higher_is_better=True),)

    def on_epoch_end(self, epoch, logs=None):
        logs['score'] = 1.0

class Set(Callback):
    def __init__(self, options, other=1):
        self.steps = options.steps

def listed():
    return [Plain(), keras.callbacks.CSVLogger('log.csv')]

def optional(options=None):
    return Set(options)

def without(other=3):
    return Plain()

def broken():
    return 1 / 0

def number():
    return 3

def board():
    return [keras.callbacks.TensorBoard('x')]

value = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / 'my_gitloss_callbacks.py').write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(tmp_path / 'my_gitloss_callbacks.py')


def load(entries, folder):
    return plugins.load(entries, toys.options(folder, steps=7))


def test_modules_files_functions_classes_and_lists(mine, tmp_path):
    found = load(
        'my_gitloss_callbacks:Plain, '
        f'{mine}:listed,my_gitloss_callbacks:Set,my_gitloss_callbacks:optional,'
        'my_gitloss_callbacks:without',
        tmp_path,
    )
    names = ' '.join(type(callback).__name__ for callback in found)
    assert names == 'Plain Plain KerasCallback Set Set Plain'
    assert isinstance(found[2], KerasCallback) and isinstance(
        found[2].wrapped, keras.callbacks.CSVLogger
    )
    assert (found[3].steps, found[4].steps) == (7, 7)
    assert load('', tmp_path) == [] and all(isinstance(callback, Callback) for callback in found)


@pytest.mark.parametrize(
    'entry, said',
    [
        (
            'my_gitloss_callbacks',
            'expected module:factory or file.py:factory. Received: my_gitloss_callbacks',
        ),
        (':f', 'expected module:factory or file.py:factory. Received: :f'),
        ('a:b c', 'expected module:factory or file.py:factory. Received: a:b c'),
        (
            'no_such_module:f',
            'expected a module that can be imported. Received: no_such_module:f, which gives '
            'ModuleNotFoundError: No module',
        ),
        (
            '/no/such/file.py:f',
            'expected a module that can be imported. Received: /no/such/file.py:f, which gives '
            'FileNotFoundError: ',
        ),
        (
            'my_gitloss_callbacks:nothing',
            'expected a function or class of the module. Received: my_gitloss_callbacks:nothing, '
            'which has none',
        ),
        (
            'my_gitloss_callbacks:value',
            'expected a function or class of the module. Received: my_gitloss_callbacks:value, '
            'which has none',
        ),
        (
            'my_gitloss_callbacks:broken',
            'expected a factory that can be called. Received: my_gitloss_callbacks:broken, which '
            'gives ZeroDivisionError: division by zero (my_gitloss_callbacks.py, line 26)',
        ),
        (
            'my_gitloss_callbacks:number',
            'expected a factory of callbacks. Received: my_gitloss_callbacks:number, which gives '
            'one refused: callbacks: expected objects of callbacks.base.Callback',
        ),
        (
            'my_gitloss_callbacks:board',
            'which gives one refused: callbacks: expected callbacks that can work in a '
            'graph-mode run. Received: keras.TensorBoard; it traces a Keras model',
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_entry(mine, tmp_path, entry, said):
    with pytest.raises(ValueError, match=r'^--callbacks: expected [^\n]*$') as caught:
        load(entry, tmp_path)
    assert said in str(caught.value)


def test_a_mistake_of_ones_own_is_a_line_and_numpy_numbers_are_no_mistake(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'import numpy\nfrom callbacks.base import Callback\n\n\nclass Late(Callback):\n'
        '    def on_epoch_end(self, epoch, logs=None):\n'
        "        logs['one'] = numpy.float32(1)\n"
        "        logs['nothing'] if epoch == 2 else None\n"
    )
    settings = toys.options(tmp_path, callbacks='mine.py:Late', evaluate=False)
    result = command(toys.flags_of(settings), cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert (
        result.stderr.splitlines()[-1]
        == "trainers.run: Late.on_epoch_end: KeyError: 'nothing' (mine.py, line 8)"
    )
    assert [row['one'] for row in history(settings.run_dir)] == [1.0]
    told = command(toys.flags_of(settings) + ['--tf_logs', '--resume=never'], cwd=tmp_path)
    assert (
        told.returncode == 1 and 'Traceback' in told.stderr and "KeyError: 'nothing'" in told.stderr
    )


@pytest.fixture(scope='module')
def example(tmp_path_factory):
    """The file in the documentation."""
    code = re.search(r'```python\n(.*?)```', GUIDE.read_text('utf-8'), re.DOTALL).group(1)
    path = tmp_path_factory.mktemp('docs') / 'separation.py'
    path.write_text(code)
    return path


def test_the_example_of_the_documentation(example, tmp_path):
    """Ten lines without blanks, docstring and import; `best` is the largest value so far, and is
    restored by a resume.
    """
    lines = [
        line
        for line in example.read_text().splitlines()
        if line.strip() and '"""' not in line and 'import' not in line
    ]
    assert len(lines) <= 10

    def fit(steps):
        settings = toys.options(tmp_path, steps=steps)
        dataset = data.load('mnist', settings.data_folder)
        mine = plugins.load(f'{example}:Separation', settings)
        Trainer(
            settings,
            dataset,
            [CenterMeasurement(dataset.train)] + mine + [History(), Checkpoint()],
            devices.choose(settings),
        ).fit()
        return mine[0].best

    assert fit(8) <= fit(12)
    rows = history(toys.options(tmp_path).run_dir)
    found = [row['inter_cls_dist'] - 2 * row['intra_cls_dist'] for row in rows]
    assert [row['inter_margin'] for row in rows] == found and len(found) == 3
    assert [row['inter_margin_best'] for row in rows] == [max([0.0] + found[:n]) for n in (1, 2, 3)]


@pytest.mark.parametrize('evaluate', [True, False])
def test_the_order_that_the_documentation_tells(evaluate, tmp_path):
    rows = re.findall(r'^\| \d+ \| (.*) \|$', GUIDE.read_text('utf-8'), re.MULTILINE)
    told = [
        name
        for row in rows
        if evaluate or '(not with `--noevaluate`)' not in row
        for name in re.findall(r'`([A-Z]\w+|--callbacks)`', row)
    ]
    (tmp_path / 'mine.py').write_text(MINE)
    mine = f'{tmp_path / "mine.py"}:Plain'
    settings = toys.options(
        tmp_path, callbacks=mine, early_stopping=1, monitor='train_loss', evaluate=evaluate
    )
    callbacks = callback_list.build_callbacks(
        settings, data.load('mnist', settings.data_folder), {'versions': {}, 'device': 'cpu'}, []
    )
    assert [
        type(callback).__name__.replace('Plain', '--callbacks') for callback in callbacks
    ] == told


def test_the_commands_of_the_documentation(example, tmp_path):
    """As typed, in the folder of the file: the example, a list beside it, and early stopping on a
    value that a callback logs: a constant score of 1 is no better at the second measurement.
    """
    (tmp_path / 'mine.py').write_text(MINE)
    (tmp_path / 'separation.py').write_text(example.read_text())
    settings = toys.options(
        tmp_path,
        callbacks='separation:Separation,mine.py:listed',
        early_stopping=1,
        monitor='score',
    )
    result = command(toys.flags_of(settings), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = history(settings.run_dir)
    assert (
        rows[-1]['step'] == 8
        and 'stopping after step 8: keras.EarlyStopping, best score 1\n' in result.stderr
    )
    assert rows[-1]['inter_margin_best'] >= rows[-1]['inter_margin']
    assert len((tmp_path / 'log.csv').read_text().splitlines()) == 3
    refused = command(
        toys.flags_of(toys.options(tmp_path, callbacks='mine.py:nothing')), cwd=tmp_path
    )
    assert (refused.returncode, refused.stderr) == (
        2,
        'trainers.run: --callbacks: expected a function or class of the module. Received: '
        'mine.py:nothing, which has none called nothing\n',
    )
