"""The forged checkpoints of benchmarks/forged.py: how each is drawn, made, and used."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import resource
import shutil
import sys

from trainers import evaluate, export, run
from trainers.checkpoints import manifest
from trainers.options import FIELDS

SECONDS = 120  # after which a command counts as hung
DATA_LIMIT = 8 << 30  # bytes, so that a blow-up ends before the machine does
FLAGS = (
    '--device=cpu --steps=6 --update_centers=2 --save_every=1 --keep_checkpoints=9 --log_every=2 '
    '--batch_size=16 --early_stopping=9 --on_nan=rollback'
).split()
_DELETED = object()
_NUMBERS = (0, 1, -1, 2, 5, 0.5, -0.0, 1e-45, 1e39, 1e308, 99999999, 1 << 31, 1 << 63, 10**30)
_VALUES = (
    *(_DELETED, None, True, False, [], {}, '', 'x', '0', 'é\n\x1b[31m\0', '\ud800', '../../x'),
    *(*_NUMBERS, 10**400, float('inf'), -float('inf'), float('nan')),  # 1e400 is read as infinity
    *('x' * 10**6, list(range(10**5)), {str(number): number for number in range(10**4)}),
)


def _places(value, above=()):
    """The paths of all values in a JSON value, but for itself."""
    inner = {dict: lambda: value.items(), list: lambda: enumerate(value)}.get(type(value))
    found = []
    for key, below in inner() if inner else ():
        found += [(*above, key), *_places(below, (*above, key))]
    return found


def _nested(value):
    for _ in range(200):
        value = [value]
    return value


def _near(value, path, chance):
    """A value that resembles the one there: what a forger would write."""
    if path[0] == 'options' and FIELDS.get(path[-1]) and FIELDS[path[-1]].choices:
        return chance.choice(FIELDS[path[-1]].choices)
    if type(value) is bool:
        return not value
    if type(value) in (int, float):
        return chance.choice((value + 1, value * 2, value * 1000, -value, value / 2, str(value)))
    if type(value) is str:
        return chance.choice((value[1:], value + value, value.upper(), [value]))
    if type(value) is list:
        return chance.choice((value[1:], value + value, value[::-1], dict(enumerate(value))))
    if path == ('metrics',):
        return {'valid_acc': chance.choice((0.9, *_NUMBERS))}
    return chance.choice((list(value), dict(value, x=value), {}))


def forge(genuine, chance):
    """Changes one or two places of a manifest. Returns (the forged one, its entries that changed,
    a description).
    """
    forged, entries, said = copy.deepcopy(genuine), set(), []
    for _ in range(chance.choice((1, 1, 2))):
        entry = chance.choice(sorted(set(forged) - {'manifest_sha256'}))
        path = chance.choice([path for path in _places(forged) if path[0] == entry])
        *above, last = path
        owner = forged
        for key in above:
            owner = owner[key]
        value = chance.choice(_VALUES)
        if chance.random() < 0.4:
            value = _near(owner[last], path, chance)
        elif chance.random() < 0.05:
            value = _nested(owner[last])
        if value is _DELETED:
            del owner[last]
        else:
            owner[last] = value
        entries.add(entry)
        text = 'deleted' if value is _DELETED else ascii(value)
        said.append(f'{"/".join(map(str, path))}: {text if len(text) < 60 else text[:60] + "..."}')
    return forged, entries, ', '.join(said)


class Place:
    """A copy of a run that is finished or, without its last checkpoint, not; and the commands for
    its newest checkpoint.
    """

    def __init__(self, folder, data, finished, is_finished):
        self.folder, self.data = folder, data
        self.run, self.new, self.export = (
            os.path.join(folder, name) for name in ('run', 'new', 'export')
        )
        shutil.copytree(finished, self.run)
        if not is_finished:
            shutil.rmtree(self._paths()[-1])
        self.forged = self._paths()[-1]

    def _paths(self):
        store = os.path.join(self.run, 'ckpt')
        return [os.path.join(store, name) for name in sorted(os.listdir(store))]

    def sign(self, content):
        """Writes a manifest with the sum that fits. The folder gets the name of its step, if that
        can be one and is free.
        """
        content['manifest_sha256'] = manifest.digest_of(content)
        with open(os.path.join(self.forged, manifest.FILE), 'w', encoding='utf-8') as file:
            json.dump(content, file)
        step = content.get('step')
        if type(step) is int and 0 <= step < 10**100:
            named = os.path.join(self.run, 'ckpt', f'step-{step:08d}')
            if not os.path.exists(named):
                os.rename(self.forged, named)
                self.forged = named

    def command(self, name):
        """(main function, its arguments)."""
        data = '--data_path=' + self.data
        path = self.run if name == 'evaluate run' else self.forged
        if name == 'export':
            return export.main, ['--ckpt_path=' + path, '--export_dir=' + self.export]
        if name.startswith('evaluate'):
            return evaluate.main, [data, '--device=cpu', '--ckpt_path=' + path]
        if name == 'resume':
            return run.main, [data, *FLAGS, '--exp_save_dir=' + self.run]
        new = ['--exp_save_dir=' + self.new, '--init_checkpoint=' + path]
        return run.main, [data, *FLAGS, *new, *'--steps=2 --early_stopping=0 --noevaluate'.split()]

    def result(self, name, out):
        """What a command that returned 0 gave: (what no manifest decides, the rest)."""
        if name == 'export':
            with open(os.path.join(self.export, 'gitloss.json')) as file:
                return None, json.load(file)['formats']['pb']['sha256']
        if name.startswith('evaluate'):
            measured = json.loads(out)
            return None, [measured[part].get('loss') for part in ('valid', 'test')]
        folder, step = {'resume': (self.run, 6), 'fine-tune': (self.new, 2)}[name]
        with open(os.path.join(folder, 'history.jsonl'), encoding='utf-8') as file:
            rows = [json.loads(line) for line in file]
        last = manifest.read(os.path.join(folder, 'ckpt', f'step-{step:08d}'))
        return last.manifest['files'], [
            [row['step'], row['train_loss'], row.get('valid_loss')] for row in rows
        ]

    def kept(self):
        """The sums of the checkpoints before the forged one."""
        others = [path for path in self._paths()[:5] if path != self.forged]
        return [manifest.read(path).manifest['manifest_sha256'] for path in others]


def _child(main, arguments, outputs):
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
    sys.exit(main(arguments))


def execute(place, name):
    """Runs a command in a fork of this process. Returns (status, stdout, stderr); status None: it
    hung.
    """
    outputs = [os.path.join(place.folder, f'{name}.{stream}') for stream in ('out', 'err')]
    process = multiprocessing.get_context('fork').Process(
        target=_child, args=(*place.command(name), outputs)
    )
    process.start()
    process.join(SECONDS)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    texts = []
    for path in outputs:
        with open(path, encoding='utf-8', errors='replace') as file:
            texts.append(file.read())
    return (status, *texts)
