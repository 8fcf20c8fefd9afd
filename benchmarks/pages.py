"""What TensorBoard's pages show, compared with the run's own files; benchmarks/browser.py runs it.

A check is called with the window, TensorBoard's address and the run, and raises AssertionError if
the page does not show what it should.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
import urllib.request
from typing import Any

from PIL import Image
from window import Window, wait_for

PICTURES = ('embeddings/scatter', 'predictions/confusion')
CURVES = {  # column of history.jsonl -> tag of the curve
    'valid_acc': 'valid/acc',
    'train_git_loss': 'train/git_loss',
    'inter_cls_dist': 'distance/inter_cls_dist',
}
CHARTS = """
return seen.filter(n => n.tagName == 'VZ-LINE-CHART2').map(n => {
  const box = n.getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
});
"""
IMAGES = """
return seen.filter(n => n.tagName == 'IMG' && n.naturalWidth)
  .map(n => [n.naturalWidth + 'x' + n.naturalHeight, n.src]);
"""
# What the Projector holds: the labels and predictions of its points, and the size of its sprite.
POINTS = """
const set = (nodes.find(n => n.tagName == 'VZ-PROJECTOR') || {}).dataSet;
const sprite = set && set.spriteAndMetadataInfo && set.spriteAndMetadataInfo.spriteImage;
return sprite && [
  set.points.map(p => [String(p.metadata.label), String(p.metadata.predicted)]),
  [sprite.naturalWidth, sprite.naturalHeight],
];
"""
# For the screenshot: points coloured by class, two-dimensional embeddings seen from above.
FROM_ABOVE = """
const z = nodes.find(n => n.id == 'z-checkbox');
const panel = nodes.find(n => n.tagName == 'VZ-PROJECTOR-DATA-PANEL');
if (z && arguments[0]) z.click();
if (panel) panel.selectedColorOptionName = 'label';
return seen.some(n => n.tagName == 'CANVAS' && n.width > 300);
"""


class Run:
    """A run's own files, to compare the pages with."""

    def __init__(self, logdir: str):
        names = sorted(os.listdir(logdir))
        found = [name for name in names if os.path.exists(f'{logdir}/{name}/results.json')]
        if not found:
            raise SystemExit(f'--logdir: expected a folder with a finished run. Received: {logdir}')
        self.name, self.folder = found[0], os.path.join(logdir, found[0])
        with open(os.path.join(self.folder, 'results.json'), encoding='utf-8') as file:
            self.results = json.load(file)
        with open(os.path.join(self.folder, 'history.jsonl'), encoding='utf-8') as file:
            self.rows = [json.loads(line) for line in file]
        self.last = self.rows[-1]


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def fetch(url: str) -> Any:
    """The JSON at an address."""
    return json.loads(read(url).decode())


def numbers(lines: set[str]) -> list[float]:
    """Those of the lines that are a number."""
    return [float(line) for line in lines if re.match(r'-?[\d.]+(e[-+]?\d+)?$', line)]


def close(value: float, wanted: float, tolerance: float) -> bool:
    return abs(value - wanted) <= tolerance * max(abs(wanted), 1e-6)


def check_scalars(page: Window, url: str, run: Run) -> None:
    """The curves are listed, their points are history.jsonl's, the mouse finds the last one."""
    chosen = urllib.parse.quote('^(train/(loss|git)|valid/acc|distance/i|centers/center_)')
    page.set_window_size(1440, 1200)  # nine charts, three by three
    page.go(f'{url}/?darkMode=false#scalars&_smoothingWeight=0&tagFilter={chosen}')
    tags = ('valid/acc', 'train/git_loss', 'train/git_floor', 'distance/inter_over_intra')
    page.shows(*tags, run.name)
    for column, tag in CURVES.items():
        query = urllib.parse.urlencode({'run': run.name, 'tag': tag})
        points = fetch(f'{url}/data/plugin/scalars/scalars?{query}')
        assert [step for _, step, _ in points] == [row['step'] for row in run.rows], (tag, points)
        for (_, _, value), row in zip(points, run.rows):
            assert close(value, row[column], 1e-6), (tag, points)
    time.sleep(3)
    page.click('Ignore outliers in chart scaling')
    time.sleep(2)
    before, wanted = set(page.text().splitlines()), run.last['center_drift']  # the first chart

    def tooltip() -> bool:
        left, top, width, height = page.run(CHARTS)[0]
        page.point_at(int(left + 0.95 * width), int(top + 0.5 * height))
        time.sleep(0.5)
        shown = numbers(set(page.text().splitlines()) - before)
        return any(close(value, wanted, 2e-3) for value in shown)

    wait_for(f'the value {wanted:g} where the mouse points', tooltip)
    page.point_at(150, 800)  # off the charts: the tooltip would cover curves in the screenshot
    time.sleep(2)


def check_images(page: Window, url: str, run: Run) -> None:
    """The last step's scatter and confusion matrix are shown, equal to the event file's bytes."""
    page.go(f'{url}/?darkMode=false#images')
    page.shows(*PICTURES, run.name)
    sizes = {'720x640', '640x600'}
    wait_for(f'pictures of {sizes}', lambda: sizes <= {size for size, _ in page.run(IMAGES)})
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # the accumulator imports TensorFlow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = {read(address) for _, address in page.run(IMAGES) if address.startswith(url)}
    written = EventAccumulator(run.folder).Reload()
    for tag in PICTURES:
        newest = written.Images(tag)[-1]
        assert newest.step == run.last['step'], (tag, newest.step)
        assert newest.encoded_image_string in shown, (tag, len(shown))
    page.shows(f'{run.last["step"]:,}')
    page.click('Show actual image size')
    time.sleep(2)


def check_projector(page: Window, url: str, run: Run) -> None:
    """All embeddings of the last measurement are drawn, with labels, predictions, thumbnails."""
    folder = os.path.join(run.folder, 'projector')
    with open(os.path.join(folder, 'metadata.tsv'), encoding='utf-8') as file:
        labels = [line.split('\t')[:2] for line in file][1:]
    page.go(f'{url}/?darkMode=false#projector')
    title = f'embeddings at step {run.last["step"]}'
    page.shows(title, 'Label by\nlabel', f'Points:\n{len(labels)}', seconds=90)
    points, size = wait_for('points with a sprite', lambda: page.run(POINTS), 90)
    assert points == labels, f'expected metadata.tsv: {labels[:3]}. Received: {points[:3]}'
    assert tuple(size) == Image.open(os.path.join(folder, 'sprite.png')).size, size
    assert page.run(FROM_ABOVE, run.results['options']['embedding_dim'] < 3), 'no canvas'
    time.sleep(6)  # the points move to their places


def check_hparams(page: Window, url: str, run: Run) -> None:
    """One row: this run's options and its final numbers."""
    page.set_window_size(2150, 700)  # all columns side by side
    page.go(f'{url}/?darkMode=false#hparams')
    page.shows('learning_rate', 'validation accuracy', 'test accuracy')
    final, options = run.results['final'], run.results['options']
    shown = [final['valid_acc'], final['test_acc'], options['learning_rate'], options['lambda_g']]
    page.shows(*[f'{value:#.5g}' for value in shown])
    time.sleep(2)


def check_histograms(page: Window, url: str, run: Run) -> None:
    page.go(f'{url}/?darkMode=false#histograms')
    page.shows('embeddings/norm', 'distance/genuine_pairs', 'distance/impostor_pairs')
    time.sleep(2)


def check_text(page: Window, url: str, run: Run) -> None:
    page.go(f'{url}/?darkMode=false#text')
    options, versions = run.results['options'], run.results['versions']
    page.shows('run/options', 'git_loss_form', options['git_loss_form'], versions['tensorflow'])


def check_graphs(page: Window, url: str, run: Run) -> None:
    page.go(f'{url}/?darkMode=false#graphs')
    page.shows('center_loss', 'conv1_1', seconds=90)
    time.sleep(3)


CHECKS = {
    'scalars': check_scalars,
    'images': check_images,
    'projector': check_projector,
    'hparams': check_hparams,
    'histograms': check_histograms,
    'text': check_text,
    'graphs': check_graphs,
}
