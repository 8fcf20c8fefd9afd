"""docs/quickstart.ipynb, executed on a toy data set."""

import os
import sys
from unittest import mock

import nbclient
import nbformat
import pytest

import toys
from machine import ROOT

DOCS = os.path.join(ROOT, 'docs')


@pytest.fixture(scope='module')
def notebook():
    return nbformat.read(os.path.join(DOCS, 'quickstart.ipynb'), 4)


def test_it_is_valid_and_has_no_outputs(notebook):
    nbformat.validate(notebook)
    assert notebook.nbformat_minor >= 5  # cells have names, so that a change of one is seen
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.fixture(scope='module')
def executed(notebook, tmp_path_factory):
    """{id of a cell: its outputs}, with 9 steps and other folders in the cell of parameters. The
    kernel is that of this interpreter, and the user's settings of IPython do not count.
    """
    folder = tmp_path_factory.mktemp('quickstart')
    values = {'data_path': toys.write_mnist(folder / 'data'), 'output': str(folder), 'steps': 9}
    notebook = nbformat.from_dict(notebook)
    (cell,) = (cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', ()))
    assert {line.split(' = ')[0] for line in cell.source.splitlines()} == set(values)
    cell.source = '\n'.join(f'{name} = {value!r}' for name, value in values.items())
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name='python3', resources={'metadata': {'path': DOCS}}
    )
    places = {
        'JUPYTER_PATH': os.path.join(sys.prefix, 'share', 'jupyter'),
        'JUPYTER_RUNTIME_DIR': str(folder / 'jupyter'),
        'IPYTHONDIR': str(folder / 'ipython'),
    }
    with mock.patch.dict(os.environ, places):
        client.execute()
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == 'code'}


def results(outputs):
    """The values of a cell by their types."""
    return {kind: value for each in outputs for kind, value in each.get('data', {}).items()}


def test_commands_return_0(executed):
    names = ('train-run', 'export-pb', 'predict-class', 'embed-run')
    for name in names:
        assert results(executed[name])['text/plain'] == '0', executed[name]


def test_pictures_and_tables_are_shown(executed):
    names = ('look-scatter', 'look-curves', 'predict-files', 'verify-roc', 'verify-scores')
    for name in names:
        assert 'image/png' in results(executed[name]), executed[name]
    assert '| EER |' in results(executed['verify-figures'])['text/markdown']
