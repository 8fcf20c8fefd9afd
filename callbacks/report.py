"""report.html: the run on one page, to keep or to send."""

from __future__ import annotations

import base64
import glob
import html
import json
import os
import string
from typing import Any

from callbacks.base import Callback
from gitloss.errors import log
from gitloss.files import write_atomically
from gitloss.metrics import Metric
from gitloss.metrics.declaration import SETS, find

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en"><head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>$title</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; padding: 0 1em;
  color: #222; background: #fff; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: 0.5em 0 1.5em; }
td, th { padding: 0.2em 0.7em; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr:nth-child(even) { background: #f0f2f5; }
.beside { display: flex; flex-wrap: wrap; gap: 0 3em; align-items: start; }
img { max-width: 100%; }
figure { display: inline-block; margin: 0 1em 1em 0; max-width: 480px; vertical-align: top; }
figcaption { font-size: 13px; color: #555; } h1 { font-size: 22px; }
h2 { font-size: 17px; margin-top: 1.6em; }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")
_PICTURES = {
    'scatter.gif': 'The validation embeddings over the run, with the class means of the training '
    'set.',
    'losses.png': 'Losses. git floor: the git loss if every sample lay on its center.',
    'distances.png': 'Distances within and between the classes of the training set.',
    'pairs.png': 'Distances of pairs of validation samples.',
    'confusion.png': 'Confusion matrix of the validation set.',
    'tsne.png': 'The validation embeddings by t-SNE, which keeps neighbours together; distances '
    'between groups mean nothing.',
}


def _cell(text):
    return f'<td class="n">{html.escape(text)}</td>'


def _table(rows, header=()):
    cells = ''.join(f'<th class="n">{html.escape(name)}</th>' for name in header)
    lines = ([cells] if header else []) + list(rows)
    return '<div class="wide"><table>{}</table></div>'.format(
        ''.join(f'<tr>{line}</tr>' for line in lines)
    )


def _pairs(values):
    """Names and values of settings, aligned left."""
    return _table(
        '<td>{}</td><td>{}</td>'.format(
            html.escape(name), html.escape(f'{value:g}' if isinstance(value, float) else str(value))
        )
        for name, value in values.items()
    )


def _result(results, metrics):
    """Two tables side by side: the metrics of the data sets, and all others of the last
    measurement, with speed and time of the whole run.
    """
    final = {
        **results['final'],
        'images_per_sec': results['throughput']['images_per_sec'],
        'seconds': results['seconds']['total'],
    }
    sets: list[str] = []
    parts: dict[str, dict[str, str]] = {}
    rest = []
    for metric in [Metric('step', 'step')] + find(metrics, sorted(set(final) - {'step'})):
        cell = _cell(metric.text(final[metric.name]))
        if metric.part:
            parts.setdefault(metric.title, {})[metric.group] = cell
            sets += [metric.group] if metric.group not in sets else []
        else:
            rest.append(f'<td>{html.escape(metric.title)}</td>{cell}')
    by_set = [
        f'<td>{html.escape(title)}</td>' + ''.join(cells.get(name, _cell('')) for name in sets)
        for title, cells in parts.items()
    ]
    header = ['', *(SETS[name] for name in sets)]
    return f'<div class="beside">{_table(by_set, header)}{_table(rest)}</div>'


def _measurements(rows, metrics):
    """A table of the metrics with a label that were measured, a line for each measurement."""
    labelled = [metric for metric in metrics.values() if metric.label]
    columns = [Metric('step', 'step', label='step')] + [
        metric for metric in labelled if any(metric.name in row for row in rows)
    ]
    lines = [
        ''.join(_cell(metric.text(row.get(metric.name, ''))) for metric in columns) for row in rows
    ]
    return _table(lines, [metric.label for metric in columns])


def _picture(path, caption):
    with open(path, 'rb') as file:
        content = base64.b64encode(file.read()).decode('ascii')
    name, kind = html.escape(os.path.basename(path)), path.rsplit('.', 1)[1]
    return (
        f'<figure><img alt="{name}" src="data:image/{kind};base64,{content}">'
        f'<figcaption>{html.escape(caption)}</figcaption></figure>'
    )


class Report(Callback):
    """Writes `report.html` at the end, after the callbacks whose files it shows. The file holds its
    pictures and needs no network.
    """

    chief_only = True

    def on_train_end(self, logs: Any = None) -> None:
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
        pictures = [(os.path.join(folder, name), text) for name, text in _PICTURES.items()]
        last = sorted(glob.glob(os.path.join(folder, 'scatter-*.png')))[-1:]
        pictures[1:1] = [(path, 'The same at the last measurement.') for path in last]
        sections = {
            'Result': _result(results, self.handle.metrics),
            'Pictures': '\n'.join(
                _picture(path, text) for path, text in pictures if os.path.exists(path)
            ),
            'Measurements': _measurements(rows, self.handle.metrics),
            'Options': _pairs(results['options']),
            'Made by': _pairs(results['versions']),
        }
        body = '\n'.join(f'<h2>{name}</h2>\n{text}' for name, text in sections.items())
        title = 'Git loss: {}, {}, {} steps'.format(
            results['options']['dataset'], results['network'], results['final']['step']
        )
        write_atomically(
            os.path.join(run_dir, 'report.html'),
            _PAGE.substitute(title=html.escape(title), body=body),
        )
