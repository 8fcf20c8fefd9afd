"""Looks at a run in TensorBoard with a real browser: are this run's numbers, pictures, embeddings
and hyperparameters on the pages?

    python benchmarks/browser.py [--logdir=output] [--screenshots=docs/images]
    [--prefix=tensorboard] [--pages=scalars,images]

Starts the TensorBoard of this interpreter, 1.15 or 2.x, and a headless Chromium on the loopback
interface (Debian: chromium, chromium-driver), reads what the pages show, compares it with the run's
own files and, if told where, saves screenshots. Without --logdir a short training on the embedded
MNIST is made first. Ends with 0 if all pages show what they should.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

from chromium import Browser, fetch, free_port, read, server, wait_for
from PIL import Image
from tensorboard import version

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ('scalars', 'images', 'projector', 'hparams', 'histograms', 'text', 'graphs')
_CHARTS = """
return seen.filter(n => n.tagName == 'VZ-LINE-CHART2').map(n => {
  const box = n.getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
});
"""
_IMAGES = "return seen.filter(n => n.tagName == 'IMG' && n.naturalWidth).map(n => [n.naturalWidth + 'x' + n.naturalHeight, n.src]);"
# What the Projector holds: the labels and predictions of its points, and the size of its sprite.
_POINTS = """
const set = (nodes.find(n => n.tagName == 'VZ-PROJECTOR') || {}).dataSet;
if (!set || !set.spriteAndMetadataInfo || !set.spriteAndMetadataInfo.spriteImage) return null;
const sprite = set.spriteAndMetadataInfo.spriteImage;
return [set.points.map(p => [String(p.metadata.label), String(p.metadata.predicted)]), [sprite.naturalWidth, sprite.naturalHeight]];
"""
# For the picture: two dimensions, if there are no more, seen from above; points coloured by class.
_FROM_ABOVE = """
const z = nodes.find(n => n.id == 'z-checkbox'), panel = nodes.find(n => n.tagName == 'VZ-PROJECTOR-DATA-PANEL');
if (z && arguments[0]) z.click();
if (panel) panel.selectedColorOptionName = 'label';
return seen.some(n => n.tagName == 'CANVAS' && n.width > 300);
"""


class Run:
    """What the run's own files say, to compare the pages with."""

    def __init__(self, logdir):
        names = sorted(
            name
            for name in os.listdir(logdir)
            if os.path.exists(os.path.join(logdir, name, 'results.json'))
        )
        if not names:
            raise SystemExit(
                f'benchmarks/browser.py: --logdir: expected a folder with a finished run in it. Received: {logdir}'
            )
        self.name, self.folder = names[0], os.path.join(logdir, names[0])
        with open(os.path.join(self.folder, 'results.json'), encoding='utf-8') as file:
            self.results = json.load(file)
        with open(os.path.join(self.folder, 'history.jsonl'), encoding='utf-8') as file:
            self.rows = [json.loads(line) for line in file]
        self.last = self.rows[-1]


def numbers(lines):
    """Those of the lines that are a number."""
    return [float(line) for line in lines if re.match(r'-?[\d.]+(e[-+]?\d+)?$', line)]


def close(value, wanted, tolerance):
    return abs(value - wanted) <= tolerance * max(abs(wanted), 1e-6)


def check_scalars(browser, url, run):
    """The curves are there by name, their points are those of history.jsonl, and the mouse finds
    the last one.
    """
    chosen = '^(train/(loss|git)|valid/acc|distance/i|centers/center_)'
    browser.resize(1440, 1200)  # nine charts, three by three
    browser.go(
        url + '/?darkMode=false#scalars&_smoothingWeight=0&tagFilter=' + urllib.parse.quote(chosen)
    )
    browser.shows(
        'valid/acc', 'train/git_loss', 'train/git_floor', 'distance/inter_over_intra', run.name
    )
    for column, tag in (
        ('valid_acc', 'valid/acc'),
        ('train_git_loss', 'train/git_loss'),
        ('inter_cls_dist', 'distance/inter_cls_dist'),
    ):
        points = fetch(
            url
            + '/data/plugin/scalars/scalars?'
            + urllib.parse.urlencode({'run': run.name, 'tag': tag})
        )
        assert [step for _, step, _ in points] == [row['step'] for row in run.rows], (tag, points)
        assert all(
            close(value, row[column], 1e-6) for (_, _, value), row in zip(points, run.rows)
        ), (tag, points)
    time.sleep(3)
    browser.click('Ignore outliers in chart scaling')
    time.sleep(2)
    before, wanted = (
        set(browser.text().splitlines()),
        run.last['center_drift'],
    )  # the first curve by its name

    def told():
        left, top, width, height = browser.run(_CHARTS)[0]
        browser.point_at(int(left + 0.95 * width), int(top + 0.5 * height))
        time.sleep(0.5)
        return any(
            close(value, wanted, 2e-3)
            for value in numbers(set(browser.text().splitlines()) - before)
        )

    wait_for(f'the value {wanted:g} where the mouse points', told)
    browser.point_at(
        150, 800
    )  # off the charts, or what the mouse told lies over the curves of the screenshot
    time.sleep(2)


def check_images(browser, url, run):
    """The newest scatter and confusion matrix are drawn, under the run's last step, and are those
    of the event file to the last byte.
    """
    browser.go(url + '/?darkMode=false#images')
    browser.shows('embeddings/scatter', 'predictions/confusion', run.name)
    wait_for(
        'pictures of the right sizes',
        lambda: {'720x640', '640x600'} <= {size for size, _ in browser.run(_IMAGES)},
    )
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # it imports TensorFlow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = {read(address) for _, address in browser.run(_IMAGES) if address.startswith(url)}
    written = EventAccumulator(run.folder).Reload()
    for tag in ('embeddings/scatter', 'predictions/confusion'):
        newest = written.Images(tag)[-1]
        assert newest.step == run.last['step'] and newest.encoded_image_string in shown, (
            tag,
            newest.step,
            len(shown),
        )
    browser.shows('{:,}'.format(run.last['step']))
    browser.click('Show actual image size')
    time.sleep(2)


def check_projector(browser, url, run):
    """The last measurement's embeddings are loaded, all points, with their labels, predictions and
    thumbnails, and drawn.
    """
    folder = os.path.join(run.folder, 'projector')
    with open(os.path.join(folder, 'metadata.tsv')) as file:
        labels = [line.split('\t')[:2] for line in file][1:]
    browser.go(url + '/?darkMode=false#projector')
    browser.shows(
        'embeddings at step %d' % run.last['step'],
        'Label by\nlabel',
        'Points:\n%d' % len(labels),
        seconds=90,
    )
    points, size = wait_for('the points with a sprite', lambda: browser.run(_POINTS), 90)
    assert points == labels, (
        'expected the labels and predictions of metadata.tsv. Received: others',
        points[:3],
        labels[:3],
    )
    assert tuple(size) == Image.open(os.path.join(folder, 'sprite.png')).size, size
    assert browser.run(_FROM_ABOVE, run.results['options']['embedding_dim'] < 3), (
        'expected a canvas to draw on. Received: none'
    )
    time.sleep(6)  # the page comes to rest


def check_hparams(browser, url, run):
    """One row: this run's options and its final numbers."""
    browser.resize(2150, 700)  # all columns side by side
    browser.go(url + '/?darkMode=false#hparams')
    browser.shows('learning_rate', 'validation accuracy', 'test accuracy')
    final, options = run.results['final'], run.results['options']
    browser.shows(
        *[
            f'{value:#.5g}'
            for value in (
                final['valid_acc'],
                final['test_acc'],
                options['learning_rate'],
                options['lambda_g'],
            )
        ]
    )
    time.sleep(2)


def check_histograms(browser, url, run):
    browser.go(url + '/?darkMode=false#histograms')
    browser.shows('embeddings/norm', 'distance/genuine_pairs', 'distance/impostor_pairs')
    time.sleep(2)


def check_text(browser, url, run):
    browser.go(url + '/?darkMode=false#text')
    browser.shows(
        'run/options',
        'git_loss_form',
        run.results['options']['git_loss_form'],
        run.results['versions']['tensorflow'],
    )


def check_graphs(browser, url, run):
    browser.go(url + '/?darkMode=false#graphs')
    browser.shows('center_loss', 'conv1_1', seconds=90)
    time.sleep(3)


def train(folder):
    """A short run on the embedded MNIST: 300 steps, measured every 100."""
    subprocess.run(
        [
            sys.executable,
            '-m',
            'trainers.run',
            '--flagfile=flags/quick.cfg',
            '--update_centers=100',
            '--exp_save_dir=' + os.path.join(folder, '0'),
        ],
        cwd=ROOT,
        check=True,
    )
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--logdir', help="folder with the run's folder in it; default: a short training is made"
    )
    parser.add_argument('--screenshots', help='folder for <prefix>-<page>.png')
    parser.add_argument('--prefix', default='tensorboard')
    parser.add_argument('--pages', default=','.join(PAGES), help='of ' + ', '.join(PAGES))
    parser.add_argument(
        '--chromium', default=shutil.which('chromium') or shutil.which('google-chrome')
    )
    parser.add_argument('--chromedriver', default=shutil.which('chromedriver'))
    arguments = parser.parse_args()
    if not arguments.chromedriver:
        parser.error(
            '--chromedriver: expected the program. Received: none, and none on PATH (Debian: chromium, chromium-driver)'
        )
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        logdir = arguments.logdir or train(os.path.join(temporary, 'output'))
        run = Run(logdir)
        port, driver_port = free_port(), free_port()
        url, driver = 'http://127.0.0.1:%d' % port, 'http://127.0.0.1:%d' % driver_port
        board = [
            sys.executable,
            '-m',
            'tensorboard.main',
            '--logdir',
            logdir,
            '--host',
            '127.0.0.1',
            '--port',
            str(port),
        ]
        with server(board, url), server(
            [arguments.chromedriver, '--port=%d' % driver_port], driver + '/status'
        ):
            wait_for('the run in TensorBoard', lambda: run.name in fetch(url + '/data/runs'))
            print('TensorBoard %s on Python %d.%d' % ((version.VERSION,) + sys.version_info[:2]))
            browser = Browser(driver, os.path.join(temporary, 'profile'), arguments.chromium)
            try:
                for page in arguments.pages.split(','):
                    browser.resize(1400, 1000)
                    try:
                        globals()['check_' + page](browser, url, run)
                        print('%-10s shows this run' % page)
                    except AssertionError as error:
                        failures.append(page)
                        print('%-10s FAILED: %s' % (page, error))
                    if arguments.screenshots:
                        browser.save(
                            os.path.join(arguments.screenshots, f'{arguments.prefix}-{page}.png')
                        )
            finally:
                browser.quit()
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
