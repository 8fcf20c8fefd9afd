"""Files stay under 250 lines and functions under 40, in the house, its tests and its benchmarks."""

import ast

import pytest

from modules import SOURCES


@pytest.mark.parametrize('path', SOURCES)
def test_a_file_fits_on_some_screens_and_a_function_on_one(path):
    with open(path, encoding='utf-8') as file:
        text = file.read()
    assert len(text.splitlines()) <= 250
    # Python 3.7 does not know where a function ends.
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and getattr(node, 'end_lineno', 0) - node.lineno >= 40
    ]
    assert long == []
