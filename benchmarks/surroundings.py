"""The environments of benchmarks/environments.py: how each is drawn, made, and used."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SECONDS = 240  # after which a command counts as hung
STREAMS = ('pipe', 'closed', 'full', 'gone')
# {dimension: its values, the usual one first}
DIMENSIONS = {
    'command': ('run', 'resume', 'evaluate', 'export', 'launch', 'help', 'mistake'),
    'stdin': ('null', 'closed'),
    'stdout': STREAMS,
    'stderr': STREAMS,
    'folder': ('usual', 'gone'),
    'HOME': ('usual', 'unset', 'missing', 'file', 'read-only'),
    'TMPDIR': ('usual', 'missing', 'file', 'read-only'),
    'locale': ('C.UTF-8', 'POSIX', 'xx_XX.nothing'),
    'name': ('run', 'läuft 日本', 'a b'),
    'umask': (0o022, 0o077, 0o777),
    'output': ('usual', 'read-only', 'root read-only'),
    'files': (None, 64, 16, 10),
    'bytes': (None, 1 << 16, 4096, 0),
    'memory': (None, 8 << 30, 1 << 30, 200 << 20),
}
# Of a process that drops the rights by which root writes to read-only folders.
_UNPRIVILEGED = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
_READ_ONLY = 'mount --bind / / && mount -o remount,ro,bind / && exec "$@"'


def draw(number, seed):
    """The case of that number: {dimension: value}."""
    chance = random.Random(f'{seed} {number}')
    case = {
        name: chance.choice(values) if chance.random() < 0.35 else values[0]
        for name, values in DIMENSIONS.items()
    }
    return dict(case, command=chance.choice(DIMENSIONS['command']))


class Place:
    """The folders of a case, and the command line in them."""

    def __init__(self, folder, data, finished, case):
        self.folder, self.case, self.data = folder, case, data
        self.parent = os.path.join(folder, 'output')
        self.run = os.path.join(self.parent, case['name'])
        self.export = os.path.join(self.parent, 'export')
        for name in ('home', 'tmp', 'output', 'cwd'):
            os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, 'file'), 'w'):
            pass
        if case['command'] in ('evaluate', 'export', 'resume'):
            shutil.copytree(finished, self.run)
        if case['command'] == 'resume':
            self._shorten()
        for name in ('HOME', 'TMPDIR'):
            if case[name] == 'read-only':
                os.chmod(os.path.join(folder, {'HOME': 'home', 'TMPDIR': 'tmp'}[name]), 0o555)
        if case['output'] == 'read-only':
            os.chmod(self.parent, 0o555)

    def _shorten(self):
        """The run as it was before its last measurement."""
        store = os.path.join(self.run, 'ckpt')
        shutil.rmtree(os.path.join(store, max(os.listdir(store))))

    def flags(self):
        command = self.case['command']
        if command == 'help':
            return ['trainers.run', '--help']
        if command == 'mistake':
            return ['trainers.run', '--steps=x']
        common = ['--data_path=' + self.data, '--device=cpu']
        if command == 'evaluate':
            return ['trainers.evaluate', '--ckpt_path=' + self.run, *common]
        if command == 'export':
            return ['trainers.export', '--ckpt_path=' + self.run, '--export_dir=' + self.export]
        own = [*common, '--steps=6', '--update_centers=3', '--batch_size=16', '--log_every=2']
        own.append('--exp_save_dir=' + self.run)
        if command == 'launch':
            logs = '--log_dir=' + os.path.join(self.parent, 'logs')
            return ['trainers.launch', '--workers=2', logs, '--', *own]
        return ['trainers.run', *own]

    def environment(self):
        case, environment = self.case, dict(os.environ, PYTHONPATH=ROOT)
        for name in ('HOME', 'TMPDIR'):
            usual = os.path.join(self.folder, {'HOME': 'home', 'TMPDIR': 'tmp'}[name])
            environment[name] = {
                'missing': os.path.join(self.folder, 'missing'),
                'file': os.path.join(self.folder, 'file'),
            }.get(case[name], usual)
            if case[name] == 'unset':
                del environment[name]
        for name in ('LC_ALL', 'LANG', 'LC_CTYPE', 'PYTHONUTF8', 'PYTHONIOENCODING'):
            environment.pop(name, None)
        environment['LC_ALL'] = case['locale']
        if case['locale'] == 'POSIX':
            environment.update(PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
        return environment

    def prepare(self):
        """In the child, before the command starts."""
        case = self.case
        os.umask(case['umask'])
        os.chdir(os.path.join(self.folder, 'cwd'))
        if case['folder'] == 'gone':
            os.rmdir(os.path.join(self.folder, 'cwd'))
        for number, name in enumerate(('stdin', 'stdout', 'stderr')):
            if case[name] == 'closed':
                os.close(number)
        for limit, name in (('AS', 'memory'), ('FSIZE', 'bytes'), ('NOFILE', 'files')):
            if case[name] is not None:
                resource.setrlimit(getattr(resource, 'RLIMIT_' + limit), (case[name], case[name]))


def stream(kind):
    """What subprocess takes for a stream of that kind."""
    if kind == 'full':
        return open('/dev/full', 'wb')
    if kind == 'gone':
        reader, writer = os.pipe()
        os.close(reader)
        return os.fdopen(writer, 'wb')
    return subprocess.PIPE if kind == 'pipe' else subprocess.DEVNULL


def execute(place, python):
    """Runs the command. Returns (status, stdout, stderr) of it; status None: it hung."""
    case = place.case
    before = list(_UNPRIVILEGED)
    if case['output'] == 'root read-only':
        before = ['unshare', '-m', 'sh', '-c', _READ_ONLY, 'sh', *before]
    out, err = stream(case['stdout']), stream(case['stderr'])
    process = subprocess.Popen(
        [*before, python, '-m', *place.flags()],
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        preexec_fn=place.prepare,
        start_new_session=True,
    )
    try:
        printed = process.communicate(timeout=SECONDS)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, status = process.communicate(), None
    for each in (out, err):
        if hasattr(each, 'close'):
            each.close()
    return (status, *((text or b'').decode('utf-8', 'replace') for text in printed))


def unusual(case):
    return ', '.join(
        f'{name} {case[name]}' for name, values in DIMENSIONS.items() if case[name] != values[0]
    )
