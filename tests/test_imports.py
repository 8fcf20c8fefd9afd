"""Imports only go down: trainers -> callbacks -> gitloss, without cycles, and TensorFlow only
through gitloss.backend.
"""

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Each may import from itself and from those before it.
FLOORS = ('gitloss', 'callbacks', 'trainers')


def _modules():
    """{dotted name: path} of all modules of the three packages."""
    found = {}
    for floor in FLOORS:
        for folder, _, names in os.walk(os.path.join(ROOT, floor)):
            for name in names:
                if name.endswith('.py'):
                    path = os.path.join(folder, name)
                    dotted = os.path.relpath(path, ROOT)[: -len('.py')].replace(os.sep, '.')
                    found[
                        dotted[: -len('.__init__')] if dotted.endswith('.__init__') else dotted
                    ] = path
    return found


MODULES = _modules()


def _parse(module):
    with open(MODULES[module], encoding='utf-8') as file:
        return ast.parse(file.read())


def _named(module, node):
    """Dotted names that an import statement imports: for `from a import b` both a and a.b, if that
    is one of our modules.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ''
    if node.level:
        parts = module.split('.')
        if not MODULES[module].endswith('__init__.py'):
            parts = parts[:-1]
        base = '.'.join(parts[: len(parts) - node.level + 1] + ([base] if base else []))
    below = [base + '.' + alias.name for alias in node.names]
    # Only submodules are imported, as in `from gitloss import data, losses`.
    if all(name in MODULES for name in below):
        return below
    return [base] + [name for name in below if name in MODULES]


def _imports(module, top_level_only=False):
    tree = _parse(module)
    nodes = tree.body if top_level_only else ast.walk(tree)
    return {
        name
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in _named(module, node)
    }


def _roots(module):
    return {name.split('.')[0] for name in _imports(module)}


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
    if module != 'gitloss.backend':
        assert not _roots(module) & {'tensorflow', 'tf_keras', 'keras'}


@pytest.mark.parametrize('module', ['gitloss.metrics', 'gitloss.figures.plots'])
def test_numbers_and_pictures_need_no_tensorflow(module):
    """Nor indirectly: none of our modules imported on the way needs the backend."""
    reached, todo = set(), [module]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += [other for other in _imports(name) if other in MODULES and other not in reached]
    assert 'gitloss.backend' not in reached


def test_the_trainer_knows_no_callback():
    """The engine imports nothing else of the callbacks than their base class and the list that runs
    them.
    """
    ours = {
        name
        for module in MODULES
        if module.startswith('trainers.engine')
        for name in _imports(module)
        if name.split('.')[0] == 'callbacks'
    }
    assert ours == {'callbacks.base', 'callbacks.list'}


def _words(module):
    """Names and strings of the code, without docstrings."""
    tree = _parse(module)
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
    yield from _imports(module)


@pytest.mark.parametrize('module', sorted(MODULES))
def test_only_the_rooms_for_it_touch_the_npu_adapter_and_the_flags(module):
    if module not in ('trainers.devices', 'trainers.devices.npu'):
        assert not [
            word for word in _words(module) if word.split('.')[0] in ('npu_bridge', 'npu_device')
        ]
    if module != 'trainers.options.parsing':
        assert not [
            name for name in _imports(module) if name == 'absl' or name.startswith('absl.flags')
        ]


def test_no_circles():
    """Cycles among the imports at the top of modules. A package counts as its __init__, which runs
    before its modules.
    """
    edges = {
        module: _imports(module, top_level_only=True) & set(MODULES) - {module}
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


# Private names of Python and TensorFlow for which there is no public one.
_UNAVOIDABLE = {'_replace', '_fields', '_asdict', '_exit', '_getframe'} | {
    '_assign_placeholder',  # Keras's set_value looks there before it adds operations
    '_assign_op',
    '_keras_initialized',  # so does its get_value
    '_samples_seen_since_last_saving',  # of ModelCheckpoint: TensorFlow 1.15 counts images
    '_control_dependencies_for_inputs',  # of tf.Graph, for the fake of the NPU's adapter
}
SOURCES = sorted(
    os.path.join(folder, name)
    for room in FLOORS + ('tests', 'benchmarks')
    for folder, _, names in os.walk(os.path.join(ROOT, room))
    for name in names
    if name.endswith('.py')
)


def _is_private(name):
    return name.startswith('_') and not name.startswith('__')


def _strangers(tree):
    """Private names that are read from anything but self, or passed to setattr and the like as
    text, and that the file itself does not define.
    """
    defined, taken = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls')
            if is_own and isinstance(node.ctx, ast.Store):
                defined.add(node.attr)
            elif not is_own:
                taken.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            taken.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(
            node.func, 'attr', getattr(node.func, 'id', '')
        ) in ('setattr', 'getattr', 'hasattr', 'delattr'):
            # Constant; Str in Python 3.7
            texts = [getattr(one, 'value', getattr(one, 's', '')) for one in node.args[:2]]
            taken.update(text.split('.')[-1] for text in texts if isinstance(text, str))
    return sorted(name for name in taken - defined - _UNAVOIDABLE if _is_private(name))


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: os.path.relpath(path, ROOT))
def test_nobody_reaches_into_a_private_name_of_another_module(path):
    with open(path, encoding='utf-8') as file:
        assert _strangers(ast.parse(file.read())) == []


@pytest.mark.parametrize(
    'code, found',
    [
        ('thing._hidden', ['_hidden']),
        ('thing.part._hidden = 1', ['_hidden']),
        ('monkeypatch.setattr(thing, "_hidden", 1)', ['_hidden']),
        ('from module import _hidden', ['_hidden']),
        ('self._own; other._own; self._own = 1; cls.__doc__', []),
        ('def _own(): pass\nmodule._own', []),
        ('import os; os._exit(1); entry._replace(a=1)', []),
    ],
)
def test_private_names_are_found(code, found):
    assert _strangers(ast.parse(code)) == found


@pytest.mark.parametrize('module', sorted(MODULES))
def test_patterns_mean_ascii_digits_and_the_whole_text(module):
    """`\\d` matches the digits of all scripts, and `$` before a newline at the end."""
    texts = [
        getattr(node, 'value', getattr(node, 's', ''))  # Constant; Str in Python 3.7
        for node in ast.walk(_parse(module))
        if isinstance(node, (ast.Constant, ast.Str) if sys.version_info < (3, 8) else ast.Constant)
    ]
    assert [text for text in texts if isinstance(text, str) and '\\d' in text] == []
