"""The recipes of docs/architecture.md, as printed: added to a copy of the project, then trained."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import toys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open(os.path.join(ROOT, 'docs', 'architecture.md'), encoding='utf-8') as _page:
    _RECIPES = _page.read().split('## Recipes')[1].split('## What stays')[0].split('\n### ')[1:]


def blocks(recipe):
    """[(file named above the code, code), ...] of a recipe: the new file, then an import and a
    line.
    """
    return re.findall(
        r'`([\w/]+\.py)`[^`]*(?:`\w+`[^`]*)?:\n\n```python\n(.*?)```', recipe, re.DOTALL
    )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The folder of a run of a copy of the project with all four recipes."""
    folder = tmp_path_factory.mktemp('recipes')
    project, data = str(folder / 'project'), str(folder / 'data')
    for floor in ('gitloss', 'callbacks', 'trainers'):
        shutil.copytree(os.path.join(ROOT, floor), os.path.join(project, floor))
    for recipe in _RECIPES:
        (new, code), (registry, lines) = blocks(recipe)
        assert not os.path.exists(os.path.join(project, new))
        with open(os.path.join(project, new), 'w') as file:
            file.write(code)
        register(os.path.join(project, registry), *lines.splitlines())
    os.mkdir(data)
    for name, count in (('train', 64), ('valid', 16), ('test', 16)):
        images, labels = toys.patterns(count)
        np.save(os.path.join(data, name + '_images.npy'), images[..., None])
        np.save(os.path.join(data, name + '_labels.npy'), labels)
    flags = '--dataset=npy --model=tiny --head=linear --steps=8 --update_centers=4 --batch_size=16'
    command = [sys.executable, '-m', 'trainers.run', *flags.split(), '--device=cpu']
    command += [
        f'--data_path={data}',
        f'--exp_save_dir={folder / "run"}',
        '--best=train_git_excess',
    ]
    done = subprocess.run(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240
    )
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    return str(folder / 'run')


def register(path, import_line, line):
    """Inserts the import after the last one at the head of the file, and the line after others of
    its kind.
    """
    with open(path, encoding='utf-8') as file:
        text = file.read()
    found = re.search(r'^(HEADS|BACKBONES|DATASETS)\b.*= {\n', text, re.MULTILINE)
    mark = found and found[0]
    if mark:
        text = text.replace(mark, mark + line + '\n')
    else:
        mark = '        evaluation,\n'
        assert mark in text
        text = text.replace(mark, mark + line + '\n')
    last = re.findall(r'^from (?:gitloss|callbacks|trainers).*\n', text, re.MULTILINE)[0]
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text.replace(last, import_line + '\n' + last, 1))


def test_there_are_four_of_at_most_twenty_lines():
    assert [recipe.splitlines()[0].split(':')[0] for recipe in _RECIPES] == [
        'A loss',
        'A backbone',
        'A data source',
        'A metric with its callback',
    ]
    for recipe in _RECIPES:
        found = blocks(recipe)
        assert len(found) == 2
        assert sum(len([line for line in code.splitlines() if line]) for _, code in found) <= 20


def test_the_new_metric_is_measured_and_chooses(run):
    """train_git_excess = train_git_loss - train_git_floor, in history and as the best."""
    with open(os.path.join(run, 'history.jsonl')) as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 2
    for row in rows:
        assert row['train_git_excess'] == row['train_git_loss'] - row['train_git_floor']
    with open(os.path.join(run, 'results.json')) as file:
        results = json.load(file)
    assert results['best_by'] == 'train_git_excess'
    assert results['best']['train_git_excess'] == min(row['train_git_excess'] for row in rows)


def test_the_new_metric_has_its_title_in_the_report(run):
    with open(os.path.join(run, 'report.html'), encoding='utf-8') as file:
        assert 'git loss above its floor' in file.read()
