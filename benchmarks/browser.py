"""Checks in a real browser that TensorBoard's pages show a run's own numbers and pictures.

    python benchmarks/browser.py [--logdir=output] [--python=INTERPRETER]
        [--screenshots=docs/images] [--prefix=tensorboard] [--pages=scalars,images]

Starts the TensorBoard of INTERPRETER (1.15 or 2.x; default: this one) and a headless Chromium on
the loopback interface, reads what the pages show, compares it with the run's own files and, if
asked to, saves screenshots. Without --logdir, INTERPRETER first trains on the embedded MNIST.
Needs selenium (requirements-dev.txt, Python 3.10 or later) and Debian's packages chromium and
chromium-driver. The exit status is 0 if all pages show what they should.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Iterator

from pages import CHECKS, Run, fetch
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.utils import free_port
from window import Window, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VERSIONS = """
import platform
from tensorboard import version
print(f'TensorBoard {version.VERSION} on Python {platform.python_version()}')
"""


def train(python: str, folder: str) -> str:
    """Trains for 300 steps on the embedded MNIST, measured every 100. Returns the log folder."""
    flags = ['--flagfile=flags/quick.cfg', f'--exp_save_dir={os.path.join(folder, "0")}']
    subprocess.run([python, '-m', 'trainers.run', *flags], cwd=ROOT, check=True)
    return folder


@contextlib.contextmanager
def tensorboard(python: str, logdir: str, run: str) -> Iterator[str]:
    """Serves the folder until the end of the block; the value is the server's address."""
    port = free_port()
    url = f'http://127.0.0.1:{port}'
    command = [python, '-m', 'tensorboard.main', '--logdir', logdir, '--host', '127.0.0.1']
    command += ['--port', str(port)]
    with open(os.devnull, 'w') as null:
        process = subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True)

    def loaded() -> bool:
        assert process.poll() is None, f'TensorBoard ended with exit status {process.returncode}'
        try:
            return run in fetch(f'{url}/data/runs')
        except OSError:
            return False

    try:
        wait_for('the run in TensorBoard', loaded)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the data server of 2.x is its child
        process.wait()


def look(page: Window, url: str, run: Run, names: list[str], prefix: str) -> list[str]:
    """Checks the pages and returns the names of those that failed. Screenshots, if `prefix`."""
    failed = []
    for name in names:
        page.set_window_size(1400, 1000)
        try:
            CHECKS[name](page, url, run)
            print(f'{name:<10} shows this run', flush=True)
        except (AssertionError, WebDriverException) as error:
            failed.append(name)
            print(f'{name:<10} FAILED: {error}', flush=True)
        if prefix:
            page.save(f'{prefix}-{name}.png')
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('--logdir', help="folder with the run's folder in it; default: trains briefly first")
    add('--python', default=sys.executable, help='whose TensorBoard it is; default: this one')
    add('--screenshots', help='folder for <prefix>-<page>.png')
    add('--prefix', default='tensorboard')
    add('--pages', default=','.join(CHECKS), help=f'of {", ".join(CHECKS)}')
    add('--chromium', default=shutil.which('chromium') or shutil.which('google-chrome') or '')
    add('--chromedriver', default=shutil.which('chromedriver'))
    settings = parser.parse_args()
    if not settings.chromedriver:
        parser.error('--chromedriver: expected a path. Received: none, and none is on PATH')
    names = settings.pages.split(',')
    if not set(names) <= set(CHECKS):
        parser.error(f'--pages: expected of {", ".join(CHECKS)}. Received: {settings.pages}')
    os.environ['no_proxy'] = '127.0.0.1,localhost'  # all addresses here
    with tempfile.TemporaryDirectory() as temporary:
        logdir = settings.logdir or train(settings.python, os.path.join(temporary, 'output'))
        run = Run(logdir)
        profile = os.path.join(temporary, 'profile')
        prefix = settings.screenshots and os.path.join(settings.screenshots, settings.prefix)
        subprocess.run([settings.python, '-c', VERSIONS], check=True)
        with tensorboard(settings.python, logdir, run.name) as url:
            with Window(settings.chromedriver, settings.chromium, profile) as page:
                return bool(look(page, url, run, names, prefix))


if __name__ == '__main__':
    sys.exit(main())
