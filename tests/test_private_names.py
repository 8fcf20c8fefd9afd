"""No module reads a private name of another one."""

import ast
import os

import pytest

from modules import ROOT, SOURCES

# Private names of Python and TensorFlow for which there is no public one.
_UNAVOIDABLE = {'_replace', '_fields', '_asdict', '_exit', '_getframe'} | {
    '_assign_placeholder',  # Keras's set_value looks there before it adds operations
    '_assign_op',
    '_keras_initialized',  # so does its get_value
    '_samples_seen_since_last_saving',  # of ModelCheckpoint: TensorFlow 1.15 counts images
    '_add_control_inputs',  # of tf.Operation: an update that precedes what was built before it
    '_control_dependencies_for_inputs',  # of tf.Graph, for the fake of the NPU's adapter
}


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
