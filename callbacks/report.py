"""report.html: a run on one page, in one file."""

from __future__ import annotations

import base64
import html
import json
import pathlib
import string
from typing import Any, Iterable, Mapping, Sequence

from callbacks.base import Callback
from gitloss import files
from gitloss.errors import log
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
# {pattern: caption}; of several files the last is shown.
_PICTURES = {
    'scatter.gif': 'The validation embeddings over the run, with the class means of the training '
    'set.',
    'scatter-*.png': 'The same at the last measurement.',
    'losses.png': 'Losses. git floor: the git loss if every sample lay on its center.',
    'distances.png': 'Distances within and between the classes of the training set.',
    'gradients.png': 'Gradients of the weighted terms of the loss with respect to the embeddings: '
    'Euclidean norms over a batch.',
    'cosines.png': 'Cosines of the angles between these gradients. -1: opposite directions.',
    'pairs.png': 'Distances of pairs of validation samples.',
    'confusion.png': 'Confusion matrix of the validation set.',
    'tsne.png': 'The validation embeddings by t-SNE, which preserves neighbours; distances '
    'between clusters have no meaning.',
}


def _cell(text: str) -> str:
    return f'<td class="n">{html.escape(text)}</td>'


def _table(rows: Iterable[str], header: Sequence[str] = ()) -> str:
    cells = ''.join(f'<th class="n">{html.escape(name)}</th>' for name in header)
    body = ''.join(f'<tr>{line}</tr>' for line in (cells, *rows) if line)
    return f'<div class="wide"><table>{body}</table></div>'


def _pairs(values: Mapping[str, Any]) -> str:
    """Names and values of settings, left-aligned."""
    return _table(
        f'<td>{html.escape(name)}</td>'
        f'<td>{html.escape(format(value, "g") if isinstance(value, float) else str(value))}</td>'
        for name, value in values.items()
    )


def _result(results: Mapping[str, Any], metrics: Mapping[str, Metric]) -> str:
    """Two tables side by side: metrics of data sets, and all other metrics of the last measurement
    with speed and time of the whole run.
    """
    final = {
        **results['final'],
        'images_per_sec': results['throughput']['images_per_sec'],
        'seconds': results['seconds']['total'],
    }
    shown = [Metric('step', 'step')] + find(metrics, sorted(set(final) - {'step'}))
    cells = {
        (metric.title, metric.group): _cell(metric.text(final[metric.name]))
        for metric in shown
        if metric.part
    }
    sets = [name for name in SETS if any(name == group for _, group in cells)]
    by_set = [
        f'<td>{html.escape(title)}</td>'
        + ''.join(cells.get((title, name), _cell('')) for name in sets)
        for title in dict.fromkeys(title for title, _ in cells)
    ]
    rest = [
        f'<td>{html.escape(metric.title)}</td>' + _cell(metric.text(final[metric.name]))
        for metric in shown
        if not metric.part
    ]
    header = ['', *(SETS[name] for name in sets)]
    return f'<div class="beside">{_table(by_set, header)}{_table(rest)}</div>'


def _measurements(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric]) -> str:
    """A table of the metrics with a label, one line per measurement."""
    columns = [Metric('step', 'step', label='step')] + [
        metric
        for metric in metrics.values()
        if metric.label and any(metric.name in row for row in rows)
    ]
    lines = [
        ''.join(_cell(metric.text(row.get(metric.name, ''))) for metric in columns) for row in rows
    ]
    return _table(lines, [metric.label for metric in columns])


def _picture(path: pathlib.Path, caption: str) -> str:
    name = html.escape(path.name)
    content = base64.b64encode(files.read(str(path))).decode('ascii')
    return (
        f'<figure><img alt="{name}" src="data:image/{path.suffix[1:]};base64,{content}">'
        f'<figcaption>{html.escape(caption)}</figcaption></figure>'
    )


class Report(Callback):
    """Writes `report.html` at the end, after the callbacks whose files it shows.

    The file contains its pictures and needs no network.
    """

    chief_only = True

    def on_train_end(self, logs: Any = None) -> None:
        try:
            self._write()
        except (OSError, ValueError, KeyError) as error:
            log.warning('no report.html: %s', error)

    def _write(self) -> None:
        run_dir = pathlib.Path(self.handle.run_dir)
        results = json.loads((run_dir / 'results.json').read_text('utf-8'))
        history = (run_dir / 'history.jsonl').read_text('utf-8')
        sections = {
            'Result': _result(results, self.handle.metrics),
            'Pictures': '\n'.join(
                _picture(path, caption)
                for pattern, caption in _PICTURES.items()
                for path in sorted((run_dir / 'plots').glob(pattern))[-1:]
            ),
            'Measurements': _measurements(
                [json.loads(line) for line in history.splitlines()], self.handle.metrics
            ),
            'Options': _pairs(results['options']),
            'Made by': _pairs(results['versions']),
        }
        body = '\n'.join(f'<h2>{name}</h2>\n{text}' for name, text in sections.items())
        title = (
            f'Git loss: {results["options"]["dataset"]}, {results["network"]}, '
            f'{results["final"]["step"]} steps'
        )
        self.handle.write('report.html', _PAGE.substitute(title=html.escape(title), body=body))
