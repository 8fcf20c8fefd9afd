"""report.html: the run on one page, to be kept or sent."""

from __future__ import annotations

import base64
import glob
import html
import json
import os

from callbacks.base import Callback
from gitloss.errors import log
from gitloss.files import write_atomically

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>%(title)s</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em; color: #222; background: #fff; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 0.5em 0 1.5em; }
td, th { padding: 0.2em 0.7em; text-align: left; vertical-align: top; overflow-wrap: anywhere; } th { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr:nth-child(even) { background: #f0f2f5; }
.beside { display: flex; flex-wrap: wrap; gap: 0 3em; align-items: start; }
img { max-width: 100%%; } figure { display: inline-block; margin: 0 1em 1em 0; max-width: 480px; vertical-align: top; }
figcaption { font-size: 13px; color: #555; } h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 1.6em; }
</style></head><body>
<h1>%(title)s</h1>
%(body)s
</body></html>
"""
_PICTURES = (
    (
        'scatter.gif',
        'The validation embeddings over the run, with the class means of the training set.',
    ),
    (
        'losses.png',
        'Losses. git floor: what the git term comes to when every sample lies on its center.',
    ),
    ('distances.png', 'Distances within and between the classes of the training set.'),
    ('pairs.png', 'Distances of pairs of validation samples.'),
    ('confusion.png', 'Confusion matrix of the validation set.'),
    (
        'tsne.png',
        'The validation embeddings by t-SNE: who is whose neighbour; distances between groups mean nothing.',
    ),
)


_SETS = {'train': 'training', 'valid': 'validation', 'test': 'test'}
_PARTS = {
    'acc': 'accuracy',
    'loss': 'loss',
    'softmax_loss': 'softmax loss',
    'center_loss': 'center loss',
    'git_loss': 'git loss',
    'git_floor': 'git floor',
    'images': 'images',
}
_NAMES = {
    'step': 'step',
    'inter_cls_dist': 'inter-class distance',
    'intra_cls_dist': 'intra-class distance',
    'inter_over_intra': 'inter / intra',
    'inter_cls_dist_running': 'inter-class distance, running mean',
    'center_drift': 'center drift',
    'centers_moved': 'share of centers moved',
    'learning_rate': 'learning rate',
}


def _cell(value, name=''):
    if isinstance(value, float):
        form = '%.4f' if name.endswith('acc') else '%.0f' if 1e3 <= abs(value) < 1e9 else '%#.4g'
        return '<td class="n">%s</td>' % (form % value)
    return f'<td class="n">{html.escape(str(value))}</td>'


def _table(rows, header=()):
    head = (
        '<tr>{}</tr>'.format(''.join(f'<th class="n">{html.escape(name)}</th>' for name in header))
        if header
        else ''
    )
    return '<div class="wide"><table>{}{}</table></div>'.format(
        head, ''.join(f'<tr>{row}</tr>' for row in rows)
    )


def _pairs(values):
    """Names and values. What is set or told rather than measured stands to the left, text as it
    is.
    """
    return _table(
        '<td>{}</td><td>{}</td>'.format(
            html.escape(name), html.escape(f'{value:g}' if isinstance(value, float) else str(value))
        )
        for name, value in values.items()
    )


def _result(results):
    """Two tables side by side: what each of the sets came to, and all else at the last
    measurement.
    """
    final = dict(results['final'])
    sets = {
        name: {
            key[len(name) + 1 :]: final.pop(key)
            for key in list(final)
            if key.startswith(name + '_')
        }
        for name in _SETS
    }
    sets = {name: values for name, values in sets.items() if values}
    parts = sorted(
        set().union(*sets.values()),
        key=lambda part: (list(_PARTS).index(part) if part in _PARTS else len(_PARTS), part),
    )
    by_set = _table(
        (
            '<td>{}</td>{}'.format(
                html.escape(_PARTS.get(part, part)),
                ''.join(_cell(values.get(part, ''), part) for values in sets.values()),
            )
            for part in parts
        ),
        [''] + [_SETS[name] for name in sets],
    )
    final.pop(
        'seconds',
        None,
        # those since the measurement before, and so is the throughput; here both are of the whole run
    )
    final.pop('images_per_sec', None)
    order = sorted(
        final, key=lambda name: list(_NAMES).index(name) if name in _NAMES else len(_NAMES)
    )
    rest = [f'<td>{html.escape(_NAMES.get(name, name))}</td>{_cell(final[name])}' for name in order]
    for name, group, entry in (
        ('images/s, mean', 'throughput', 'images_per_sec'),
        ('seconds in all', 'seconds', 'total'),
    ):
        if entry in results.get(group, {}):
            rest.append(f'<td>{name}</td>{_cell(results[group][entry])}')
    return f'<div class="beside">{by_set}{_table(rest)}</div>'


def _picture(path, caption):
    with open(path, 'rb') as file:
        content = base64.b64encode(file.read()).decode('ascii')
    return '<figure><img alt="{}" src="data:image/{};base64,{}"><figcaption>{}</figcaption></figure>'.format(
        html.escape(os.path.basename(path)), path.rsplit('.', 1)[1], content, html.escape(caption)
    )


class Report(Callback):
    """Writes `report.html` at the end, after the callbacks whose files it shows. It holds its
    pictures and needs no network.
    """

    chief_only = True

    def on_train_end(self, logs=None):
        try:
            self._write()
        except (OSError, ValueError, KeyError) as error:
            log.warning('no report.html: %s', error)

    def _write(self):
        run_dir = self.handle.run_dir
        with open(os.path.join(run_dir, 'results.json'), encoding='utf-8') as file:
            results = json.load(file)
        with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
            rows = [json.loads(line) for line in file]
        folder = os.path.join(run_dir, 'plots')
        pictures = [(os.path.join(folder, name), caption) for name, caption in _PICTURES]
        last = sorted(glob.glob(os.path.join(folder, 'scatter-*.png')))[-1:]
        pictures[1:1] = [(path, 'The same at the last measurement.') for path in last]
        columns = [
            name
            for name in (
                'step',
                'train_loss',
                'train_acc',
                'valid_loss',
                'valid_acc',
                'inter_cls_dist',
                'intra_cls_dist',
                'images_per_sec',
            )
            if any(name in row for row in rows)
        ]
        body = (
            ['<h2>Result</h2>', _result(results), '<h2>Pictures</h2>']
            + [_picture(path, caption) for path, caption in pictures if os.path.exists(path)]
            + [
                '<h2>Measurements</h2>',
                _table(
                    (''.join(_cell(row.get(name, ''), name) for name in columns) for row in rows),
                    columns,
                ),
                '<h2>Options</h2>',
                _pairs(results['options']),
                '<h2>Made by</h2>',
                _pairs(results['versions']),
            ]
        )
        title = 'Git loss: %s, %s, %d steps' % (
            results['options']['dataset'],
            results['network'],
            results['final']['step'],
        )
        write_atomically(
            os.path.join(run_dir, 'report.html'),
            _PAGE % {'title': html.escape(title), 'body': '\n'.join(body)},
        )
