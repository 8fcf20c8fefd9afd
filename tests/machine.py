"""A machine for the shell scripts, in a folder: interpreters that only pretend, and a training that
leaves fixed results.
"""

import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASH = shutil.which('bash')
EVERYTHING = (
    'tensorflow tf_keras numpy absl tensorboard matplotlib tqdm PIL venv ensurepip pytest '
    'hypothesis ruff'
)

# An interpreter as far as test/common.sh can tell. Its modules are listed in <itself>.has; its
# commands are logged in $LOG. An environment that it makes has no modules until pip has installed
# them, which fails while $FAIL exists.
FAKE = r"""#!/bin/sh
case "$*" in
  *version_info*) echo VERSION ;;
  *find_spec*)
    shift 2
    for module; do
      case " $(cat "$0.has") " in *" $module "*) ;; *) printf '%s ' "$module" ;; esac
    done ;;
  "-m venv "*)
    echo "venv VERSION" >>"$LOG"
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    : >"$3/bin/python.has" ;;
  "-m pip "*)
    for file; do :; done
    echo "pip $(basename "$file")" >>"$LOG"
    [ ! -e "$FAIL" ] || exit 1
    case "$*" in
      *" wheel "*) mkdir -p "$file" && : >"$file/gitloss-1-py3-none-any.whl" ;;
      *) echo "EVERYTHING" >"$0.has" ;;
    esac ;;
  *) echo "VERSION $*${GITLOSS_PEER_PYTHON:+ with peer $GITLOSS_PEER_PYTHON}" >>"$LOG" ;;
esac
"""


class Machine:
    """A folder with the shell files of the project, a PATH with only a few tools, and no Python
    unless a test adds one.
    """

    def __init__(self, folder):
        self.root, self.bin, self.home = folder / 'project', folder / 'bin', folder / 'home'
        self.log, self.fail = folder / 'log', folder / 'fail'
        for path in (self.root, self.bin, self.home):
            path.mkdir()
        for name in ('test', 'flags', 'gitloss', 'trainers'):
            shutil.copytree(
                os.path.join(ROOT, name),
                str(self.root / name),
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        for name in (
            'requirements.txt',
            'requirements-dev.txt',
            'requirements-py37.lock',
            'requirements-py311.lock',
        ):
            shutil.copy(os.path.join(ROOT, name), str(self.root))
        for tool in 'basename cat cksum cp dirname flock ls mkdir readlink rm sleep uname'.split():
            if shutil.which(tool):
                os.symlink(shutil.which(tool), str(self.bin / tool))

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def python(self, path, modules=EVERYTHING, version='3.11'):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + '.has').write_text(modules)
        return self.script(path, FAKE.replace('VERSION', version).replace('EVERYTHING', EVERYTHING))

    def bash(self, *command, cwd=None, **variables):
        """Runs bash; returns (status, stdout without its last newline, stderr)."""
        environment = {
            'PATH': str(self.bin),
            'HOME': str(self.home),
            'LOG': str(self.log),
            'FAIL': str(self.fail),
        }
        environment.update(variables)
        done = subprocess.run(
            (BASH,) + command,
            cwd=str(cwd or self.root),
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.rstrip('\n'), done.stderr

    def call(self, function, **variables):
        return self.bash(
            '-c', f'set -euo pipefail; source "{self.root}/test/common.sh"; {function}', **variables
        )

    def logged(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


RESULTS = {
    'options': {'batch_size': 128},
    'final': {
        'step': 2000,
        'train_loss': 0.123456789,
        'train_acc': 0.98766,
        'valid_acc': 0.989,
        'test_acc': 0.98912,
    },
    'throughput': {'images_per_sec': 1113.0434, 'sec_per_step': 0.115},
    'seconds': {'total': 941.6},
}
HISTORY = [{'step': 1000, 'train_loss': 0.5}, {'step': 2000, 'train_loss': 0.123456789}]
BLOCK = """------------------ Final result ------------------
Final Performance images/sec : 1113.04
Final Performance sec/step : 0.1150
E2E Training Duration sec : 942
Final Train Accuracy : 0.9877
Final Valid Accuracy : 0.9890
Final Test Accuracy : 0.9891"""

TRAINER = r"""#!/bin/sh
case "$*" in
  *version_info*) echo 3.11 ;;
  *find_spec*) ;;
  *" trainers.run "*)
    shift 3
    echo "$PWD" >>"$LOG"
    echo "$*" >>"$LOG"
    echo "$ASCEND_DEVICE_ID $RANK_SIZE $RANK_ID $JOB_ID" >>"$LOG"
    [ ! -e "$FAIL" ] || exit 3
    mkdir -p "$RUN"
    cp "$HOME/results.json" "$HOME/history.jsonl" "$RUN" ;;
  *) exec "REAL" "$@" ;;
esac
"""
