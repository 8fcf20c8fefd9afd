"""The modules of the project and all its source files, and what an import names."""

import ast
import os

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

SOURCES = sorted(
    os.path.join(folder, name)
    for room in FLOORS + ('tests', 'benchmarks')
    for folder, _, names in os.walk(os.path.join(ROOT, room))
    for name in names
    if name.endswith('.py')
)


def parse(module):
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


def imports_of(module, top_level_only=False):
    tree = parse(module)
    nodes = tree.body if top_level_only else ast.walk(tree)
    return {
        name
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in _named(module, node)
    }
