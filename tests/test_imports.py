"""Imports only go down: trainers -> callbacks -> gitloss, without cycles, and TensorFlow only
through gitloss.backend.
"""

import ast
import subprocess
import sys

import pytest

from modules import FLOORS, MODULES, ROOT, imports_of, parse


def _roots(module):
    return {name.split('.')[0] for name in imports_of(module)}


def test_the_floors_are_found():
    assert {
        'gitloss',
        'gitloss.backend',
        'gitloss.data.mnist',
        'callbacks.base',
        'trainers.run',
    } <= set(MODULES)


@pytest.mark.parametrize('module', sorted(MODULES))
def test_imports_do_not_run_upwards(module):
    above = FLOORS[FLOORS.index(module.split('.')[0]) + 1 :]
    assert not _roots(module) & set(above)
    assert not _roots(module) & {'tests', 'test', 'benchmarks'}


@pytest.mark.parametrize('module', sorted(MODULES))
def test_tensorflow_comes_through_the_backend(module):
    allowed = {'gitloss.backend': {'tensorflow', 'tf_keras'}, 'gitloss.keras.keras3': {'keras'}}
    of_tensorflow = _roots(module) & {'tensorflow', 'tf_keras', 'keras'}
    assert of_tensorflow == allowed.get(module, set())


@pytest.mark.parametrize('module', ['gitloss.metrics', 'gitloss.figures.plots'])
def test_numbers_and_pictures_need_no_tensorflow(module):
    """Nor indirectly: none of our modules imported on the way needs the backend."""
    reached, todo = set(), [module]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += [other for other in imports_of(name) if other in MODULES and other not in reached]
    assert 'gitloss.backend' not in reached


def test_the_trainer_knows_no_callback():
    """The engine imports nothing else of the callbacks than their base class and the list that runs
    them.
    """
    ours = {
        name
        for module in MODULES
        if module.startswith('trainers.engine')
        for name in imports_of(module)
        if name.split('.')[0] == 'callbacks'
    }
    assert ours == {'callbacks.base', 'callbacks.list'}


def _words(module):
    """Names and strings of the code, without docstrings."""
    tree = parse(module)
    docstrings = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            docstrings.add(id(node.body[0].value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        # Python 3.7 has Str instead of Constant.
        elif type(node).__name__ in ('Constant', 'Str') and id(node) not in docstrings:
            yield str(getattr(node, 'value', getattr(node, 's', '')))
    yield from imports_of(module)


@pytest.mark.parametrize('module', sorted(MODULES))
def test_only_the_rooms_for_it_touch_the_npu_adapter_and_the_flags(module):
    if module not in ('trainers.devices', 'trainers.devices.npu'):
        assert not [
            word for word in _words(module) if word.split('.')[0] in ('npu_bridge', 'npu_device')
        ]
    if module != 'trainers.options.parsing':
        assert not [
            name for name in imports_of(module) if name == 'absl' or name.startswith('absl.flags')
        ]


def test_no_circles():
    """Cycles among the imports at the top of modules. A package counts as its __init__, which runs
    before its modules.
    """
    edges = {
        module: imports_of(module, top_level_only=True) & set(MODULES) - {module}
        for module in MODULES
    }
    done = set()

    def visit(module, path):
        assert module not in path, 'a circle: {}'.format(' -> '.join(path + [module]))
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, path + [module])
            done.add(module)

    for module in sorted(MODULES):
        visit(module, [])


def _fresh(code):
    return (
        subprocess.run(
            [sys.executable, '-c', code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=True,
        )
        .stdout.decode()
        .split()
    )


def test_importing_the_package_imports_no_tensorflow():
    heavy = _fresh(
        'import gitloss, sys; '
        'print(*[m for m in ("tensorflow", "tf_keras", "matplotlib", "numpy") if m in sys.modules])'
    )
    assert heavy == []


def test_metrics_and_plots_run_without_tensorflow():
    heavy = _fresh(
        'import gitloss, sys; gitloss.metrics.ClassSums; gitloss.figures.plots; '
        'print(*[m for m in ("tensorflow", "tf_keras", "gitloss.backend") if m in sys.modules])'
    )
    assert heavy == []


def test_embeddings_in_a_file_are_verified_without_tensorflow():
    heavy = _fresh(
        'import sys; from trainers import command, evaluate, verifying; '
        'from gitloss.figures import verification; '
        'print(*[m for m in ("tensorflow", "tf_keras", "gitloss.backend") if m in sys.modules])'
    )
    assert heavy == []


def test_a_training_begins_without_the_libraries_of_its_end():
    """Matplotlib and scikit-learn draw measurements."""
    heavy = _fresh(
        'import sys; from trainers import callback_list, run; from trainers.engine import trainer; '
        'print(*[m for m in ("matplotlib", "sklearn") if m in sys.modules])'
    )
    assert heavy == []


def test_the_garbage_collector_passes_over_tensorflow():
    """A second call keeps no garbage that there may be by then."""
    counts = _fresh(
        'import gc; from trainers import command; command.import_tensorflow(); '
        'print(gc.isenabled(), gc.get_freeze_count()); command.import_tensorflow(); '
        'print(gc.get_freeze_count())'
    )
    assert counts[0] == 'True' and int(counts[1]) > 100000 and counts[1] == counts[2]


@pytest.mark.parametrize('module', sorted(MODULES))
def test_patterns_mean_ascii_digits_and_the_whole_text(module):
    """`\\d` matches the digits of all scripts, and `$` before a newline at the end."""
    texts = [
        getattr(node, 'value', getattr(node, 's', ''))  # Constant; Str in Python 3.7
        for node in ast.walk(parse(module))
        if isinstance(node, (ast.Constant, ast.Str) if sys.version_info < (3, 8) else ast.Constant)
    ]
    assert [text for text in texts if isinstance(text, str) and '\\d' in text] == []
