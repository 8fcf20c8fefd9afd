"""The shell scripts: which Python is chosen, how environments are made, what the scripts write. No
training, no network.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
    echo "EVERYTHING" >"$0.has" ;;
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


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize(
    'script',
    [
        'test/common.sh',
        'test/train_full_1p.sh',
        'test/train_performance_1p.sh',
        'test/train_full_8p.sh',
        'test/train_performance_8p.sh',
        '.ci/run',
    ],
)
def test_scripts_are_valid_bash(script):
    subprocess.run([BASH, '-n', os.path.join(ROOT, script)], check=True)


# --- which Python ---------------------------------------------------------------------------------


def test_lacks_names_missing_modules_without_importing():
    """Asked of the real interpreter: json is there, no_such_module is not, and `this`, which would
    print, is not imported.
    """
    command = 'source test/common.sh; lacks "$0" json no_such_module this'
    done = subprocess.run(
        [BASH, '-c', command, sys.executable], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, 'no_such_module', '')


@pytest.mark.parametrize(
    'before, expected', [(signal.SIG_DFL, 'SIG_DFL'), (signal.SIG_IGN, 'SIG_IGN')]
)
def test_run_module_makes_ctrl_c_silent_before_the_first_import(before, expected):
    """The module `code` runs the statements of stdin. An ignored SIGINT, as of a rank in the
    background, stays ignored.
    """
    done = subprocess.run(
        [BASH, '-c', 'source test/common.sh; run_module "$0" code', sys.executable],
        cwd=ROOT,
        input='import signal\nprint(signal.getsignal(signal.SIGINT).name)\n',
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, before),
    )
    assert (done.returncode, done.stdout.strip('> \n')) == (0, expected)


def test_pick_python_order(machine):
    """All three exist; the first one is removed each time: $PYTHON, then that of the active
    environment, then .venv.
    """
    given = machine.python(machine.home / 'given')
    active = machine.python(machine.bin / 'python')
    own = machine.python(machine.root / '.venv' / 'bin' / 'python')
    assert machine.call('pick_python', PYTHON=given)[:2] == (0, given)
    assert machine.call('pick_python')[:2] == (0, active)
    # Active, but without TensorFlow.
    machine.python(machine.bin / 'python', modules='venv ensurepip')
    assert machine.call('pick_python')[:2] == (0, own)
    assert machine.logged() == []  # nothing was made or installed


@pytest.mark.parametrize(
    'modules, words',
    [('numpy venv', 'without tensorflow'), ('tensorflow tf_keras numpy absl', 'without ')],
)
def test_python_variable_must_have_what_is_needed(machine, modules, words):
    machine.python(machine.root / '.venv' / 'bin' / 'python')  # not fallen back to
    status, out, err = machine.call(
        'pick_python', PYTHON=machine.python(machine.home / 'given', modules=modules)
    )
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('PYTHON: expected a Python 3 that has tensorflow') and words in err


def test_python_variable_that_does_not_run(machine):
    status, out, err = machine.call('pick_python', PYTHON='/nowhere/python')
    assert (
        (status, out) == (2, '')
        and err.count('\n') == 1
        and '/nowhere/python, which does not run' in err
    )


def test_active_environment_with_tensorflow_but_incomplete_is_an_error(machine):
    """A user's TensorFlow, which may have the adapter of a device, is not silently replaced by
    another one.
    """
    machine.python(machine.bin / 'python', modules='tensorflow tf_keras numpy absl tensorboard PIL')
    status, out, err = machine.call('pick_python')
    assert (status, out, err.count('\n')) == (2, '', 1) and 'but not matplotlib tqdm' in err


def test_environment_is_made_on_first_use_and_again_when_the_lock_changes(machine):
    machine.python(machine.bin / 'python3.11')
    for _ in range(2):  # the second call finds it ready
        status, out, _ = machine.call('pick_python')
        assert (status, out) == (0, str(machine.root / '.venv' / 'bin' / 'python'))
        assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock']
    with open(str(machine.root / 'requirements-py311.lock'), 'a') as file:
        file.write('another==1.0\n')
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock'] * 2


@pytest.mark.parametrize(
    'version, file', [('3.7', 'requirements-py37.lock'), ('3.12', 'requirements-dev.txt')]
)
def test_installed_is_what_fits_the_version(machine, version, file):
    machine.python(machine.bin / ('python' + version), version=version)
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['venv ' + version, 'pip ' + file]


def test_interrupted_installation_is_seen_and_made_anew(machine):
    """After a kill between unpacking and the stamp, an environment may hold half a package,
    although all modules can be found.
    """
    machine.python(machine.bin / 'python3.11')
    machine.fail.write_text('')
    assert machine.call('pick_python')[0] == 2
    stamp = machine.root / '.venv' / 'made-by-gitloss'
    assert stamp.read_text() == 'unfinished\n'
    machine.fail.unlink()
    (machine.root / '.venv' / 'bin' / 'python.has').write_text(EVERYTHING)
    assert machine.call('pick_python')[0] == 0
    assert stamp.read_text() != 'unfinished\n'
    assert machine.logged() == ['venv 3.11', 'pip requirements-py311.lock'] * 2


def test_users_own_environment_is_added_to_not_deleted(machine):
    machine.python(machine.bin / 'python3.11')
    machine.python(machine.root / '.venv' / 'bin' / 'python', modules='venv ensurepip')
    mine = machine.root / '.venv' / 'mine'
    mine.write_text('')
    assert machine.call('pick_python')[0] == 0
    assert machine.logged() == ['pip requirements-py311.lock'] and mine.exists()


def test_no_python_at_all(machine):
    status, out, err = machine.call('pick_python')
    assert (status, out, err.count('\n')) == (2, '', 1) and err.startswith('No Python found')


def test_find_python37_passes_over_a_shim_that_refuses(machine):
    shim = 'echo "pyenv: python3.7: command not found" >&2; exit 127\n'
    machine.script(machine.bin / 'python3.7', '#!/bin/sh\n' + shim)
    assert machine.call('find_python37') == (0, '', '')
    versions = machine.home / '.pyenv' / 'versions'
    machine.script(versions / '3.7.1' / 'bin' / 'python', '#!/bin/sh\n' + shim)
    machine.python(versions / '3.8.18' / 'bin' / 'python', version='3.8')
    works = machine.python(versions / '3.7.16' / 'bin' / 'python', version='3.7')
    assert machine.call('find_python37') == (0, works, '')
    elsewhere = machine.python(
        machine.home / 'other' / 'versions' / '3.7.9' / 'bin' / 'python', version='3.7'
    )
    assert machine.call('find_python37', PYENV_ROOT=str(machine.home / 'other')) == (
        0,
        elsewhere,
        '',
    )


# --- make test ------------------------------------------------------------------------------------


def test_tests_run_on_both_interpreters(machine):
    machine.python(machine.bin / 'python3.11')
    machine.python(machine.bin / 'python3.7', version='3.7')
    assert machine.call('run_tests -x', REQUIRE_PY37='1')[0] == 0
    logged = machine.logged()
    assert logged[:4] == [
        'venv 3.11',
        'pip requirements-py311.lock',
        'venv 3.7',
        'pip requirements-py37.lock',
    ]
    assert sorted(logged[4:]) == [
        '3.11 -m pytest -x',
        f'3.7 -m pytest -x with peer {machine.root}/.venv/bin/python',
    ]
    assert (machine.root / '.venv37').is_dir()


@pytest.mark.parametrize('required, expected', [('', 0), ('1', 1)])
def test_left_out_leg_is_said_loudly(machine, required, expected):
    machine.python(machine.bin / 'python3.11')
    status, _, err = machine.call('run_tests', REQUIRE_PY37=required)
    assert status == expected
    boxed = [line for line in err.splitlines() if line.startswith('**')]
    assert len(boxed) >= 5 and len({len(line) for line in boxed}) == 1
    assert 'THE TESTS DID NOT RUN ON PYTHON 3.7 WITH TENSORFLOW 1.15.' in err


# --- the model zoo's scripts ----------------------------------------------------------------------

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
CASE_LOG = f"""Network = Gitloss_ID1277_for_TensorFlow
RankSize = 1
BatchSize = 128
DeviceType = {platform.machine()}
CaseName = Gitloss_ID1277_for_TensorFlow_bs128_1p_acc
ActualFPS = 1113.04
TrainingTime = 115.00
TrainAccuracy = 0.9877
ActualLoss = 0.123457
E2ETrainingTime = 942
"""

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


@pytest.fixture
def zoo(machine):
    """A machine whose $PYTHON only pretends to train: it leaves RESULTS and HISTORY in $RUN."""
    (machine.home / 'results.json').write_text(json.dumps(RESULTS))
    (machine.home / 'history.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in HISTORY))
    machine.variables = {
        'PYTHON': machine.script(machine.home / 'trainer', TRAINER.replace('REAL', sys.executable))
    }
    return machine


def test_full_script_from_within_test(zoo):
    """BLOCK and CASE_LOG derived from RESULTS by hand: 0.98766 -> 0.9877, 0.989 -> 0.9890, 0.98912
    -> 0.9891, 0.115 s -> 115.00 ms, 941.6 s -> 942, 0.123456789 -> 0.123457. The losses are those
    of the two measurements.
    """
    run = zoo.root / 'output' / '0'
    here = zoo.root / 'test'
    status, out, _ = zoo.bash(
        'train_full_1p.sh', '--steps=20', '--data_path=', cwd=here, RUN=str(run), **zoo.variables
    )
    assert (status, out) == (0, BLOCK)
    command = (
        f'trainers.run --flagfile={zoo.root}/flags/full.cfg --resume=never --steps=20 --data_path='
    )
    assert zoo.logged() == [str(here), command, '0 1 0 10087']
    name = 'Gitloss_ID1277_for_TensorFlow_bs128_1p_acc'
    assert (run / (name + '.log')).read_text() == CASE_LOG
    assert (run / (f'train_{name}_loss.txt')).read_text() == '0.500000\n0.123457\n'


def test_performance_script_of_another_device_without_accuracies(zoo):
    """Without evaluation there is no valid_acc and no test_acc: two lines less. A speed that was
    not measured is nan, and no error.
    """
    results = dict(
        RESULTS,
        final={'step': 1, 'train_loss': 2.0, 'train_acc': 0.5},
        throughput={'images_per_sec': None, 'sec_per_step': None},
    )
    (zoo.home / 'results.json').write_text(json.dumps(results))
    run = zoo.root / 'output' / '3'
    status, out, _ = zoo.bash(
        'test/train_performance_1p.sh', RUN=str(run), ASCEND_DEVICE_ID='3', **zoo.variables
    )
    assert (
        status == 0
        and zoo.logged()[-1] == '3 1 0 10087'
        and 'flags/performance.cfg' in zoo.logged()[1]
    )
    assert out.splitlines()[1:] == [
        'Final Performance images/sec : nan',
        'Final Performance sec/step : nan',
        'E2E Training Duration sec : 942',
        'Final Train Accuracy : 0.5000',
    ]
    lines = (run / 'Gitloss_ID1277_for_TensorFlow_bs128_1p_perf.log').read_text().splitlines()
    assert lines[4:7] == [
        'CaseName = Gitloss_ID1277_for_TensorFlow_bs128_1p_perf',
        'ActualFPS = nan',
        'TrainingTime = nan',
    ]


def test_results_are_read_where_exp_save_dir_says(zoo):
    """A relative folder is relative to the current folder of the user, here the home folder."""
    script = str(zoo.root / 'test' / 'train_full_1p.sh')
    status, out, _ = zoo.bash(
        script, '--exp_save_dir=mine', cwd=zoo.home, RUN='mine', **zoo.variables
    )
    assert (status, out) == (0, BLOCK)
    assert len(list((zoo.home / 'mine').glob('*_acc*'))) == 2


def test_failed_training_gives_its_status_and_no_final_result(zoo):
    zoo.fail.write_text('')
    status, out, _ = zoo.bash('test/train_full_1p.sh', RUN=str(zoo.home), **zoo.variables)
    assert (status, out) == (3, '')


@pytest.mark.parametrize('flag', ['-h', '--help'])
def test_help_needs_no_python(machine, flag):
    status, out, _ = machine.bash('test/train_full_1p.sh', flag)
    assert (
        status == 0
        and out.startswith('usage: bash test/train_full_1p.sh')
        and '--data_path=' in out
    )


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (
            ['--over_dump=True'],
            'enable_dump_debug=true,dump_debug_mode=all,dump_path={out}/overflow_dump/3',
        ),
        (
            ['--data_dump_flag=true'],
            'enable_dump=true,dump_mode=all,dump_step=10,dump_path={out}/data_dump/3',
        ),
        (
            ['--data_dump_flag=1', '--data_dump_step=0|5'],
            'enable_dump=true,dump_mode=all,dump_step=0|5,dump_path={out}/data_dump/3',
        ),
        (
            ['--autotune=True', '--npu_option=deterministic=1'],
            'aoe_mode=2,work_path={out}/autotune/3,deterministic=1',
        ),
        (
            ['--profiling=True'],
            'profiling_mode=true,profiling_options={{"output":"{out}/profiling/3","training_trace":"on","task_trace":"on",'
            '"aicpu":"on","fp_point":"","bp_point":""}}',
        ),
        (
            [
                '--over_dump=False',
                '--data_dump_flag=False',
                '--profiling=False',
                '--autotune=False',
                '--data_dump_step=10',
            ],
            None,
        ),
    ],
)
def test_the_zoos_arguments_become_settings_of_the_session(zoo, arguments, expected):
    """One --npu_option with all of them, which the parser of the trainer splits again; the folders
    are created.
    """
    from trainers.devices import npu_options

    run = zoo.root / 'output' / '3'
    status, _, err = zoo.bash(
        'test/train_full_1p.sh',
        '--steps=20',
        *arguments,
        RUN=str(run),
        ASCEND_DEVICE_ID='3',
        **zoo.variables,
    )
    assert status == 0, err
    given = zoo.logged()[1].split(' --steps=20')[1].strip()
    assert given == ('--npu_option=' + expected.format(out=zoo.root / 'output') if expected else '')
    values = npu_options.parse(given[len('--npu_option=') :])
    assert set(values) == {
        part.split('=')[0] for part in (expected or '').split(',') if '=' in part
    }


def test_the_zoos_ckpt_path_is_what_the_training_starts_from(zoo):
    """Only the commands that evaluate and export read the trainer's own --ckpt_path."""
    status, _, err = zoo.bash(
        'test/train_full_1p.sh',
        '--ckpt_path=/a/run',
        '--steps=20',
        RUN=str(zoo.root / 'output' / '0'),
        **zoo.variables,
    )
    assert status == 0, err
    assert zoo.logged()[1].endswith(' --resume=never --init_checkpoint=/a/run --steps=20')
    assert '--ckpt_path=' in zoo.bash('test/train_full_1p.sh', '--help')[1]


@pytest.mark.parametrize(
    'arguments, said',
    [
        (
            ['--over_dump=True', '--data_dump_flag=True'],
            '--over_dump: expected without --data_dump_flag, of which the NPU can do one',
        ),
        (['--profiling=yes'], '--profiling: expected True or False. Received: yes'),
    ],
)
def test_arguments_of_the_zoo_that_cannot_be_are_one_line(zoo, arguments, said):
    status, out, err = zoo.bash('test/train_full_1p.sh', *arguments, **zoo.variables)
    assert (
        (status, out, err.count('\n')) == (2, '', 1) and err.startswith(said) and zoo.logged() == []
    )


# --- several cards --------------------------------------------------------------------------------

RANK = r"""#!/bin/sh
case "$*" in
  *version_info*) echo 3.11 ;;
  *find_spec*) ;;
  *" trainers.run "*)
    shift 3
    echo "$RANK_ID of $RANK_SIZE on $ASCEND_DEVICE_ID, job $JOB_ID" >"$HOME/rank_$RANK_ID"
    echo "$*"
    case "$RANK_ID" in
      "$BAD") exit 5 ;;
      0) mkdir -p "$RUN"; cp "$HOME/results.json" "$HOME/history.jsonl" "$RUN" ;;
    esac
    [ -z "$BAD" ] || exec sleep 300 ;;
  *) exec "REAL" "$@" ;;
esac
"""


@pytest.fixture
def ranks(zoo):
    """`zoo` with pretended ranks: $BAD, if set, names one that fails while the others hang, as on
    the cards.
    """
    zoo.variables = {
        'PYTHON': zoo.script(zoo.home / 'rank', RANK.replace('REAL', sys.executable)),
        'RUN': str(zoo.root / 'output' / '0'),
    }
    (zoo.home / 'table.json').write_text('{}')
    return zoo


def test_eight_ranks_each_with_its_card_and_its_log(ranks):
    status, out, err = ranks.bash(
        'test/train_full_8p.sh',
        '--steps=20',
        RANK_TABLE_FILE=str(ranks.home / 'table.json'),
        **ranks.variables,
    )
    assert status == 0, err
    assert out.splitlines()[0] == BLOCK.splitlines()[0]
    for rank in range(8):
        said = (ranks.home / f'rank_{rank}').read_text()
        assert said == f'{rank} of 8 on {rank}, job 10087\n'
        # A device chosen automatically might be another one, on which each rank would train alone.
        command = f'trainers.run --device=npu --flagfile={ranks.root}/flags/full.cfg'
        log = (ranks.root / 'output' / f'train_rank_{rank}.log').read_text()
        assert command + ' --resume=never --steps=20' in log
    log = (
        ranks.root / 'output' / '0' / 'Gitloss_ID1277_for_TensorFlow_bs128_8p_acc.log'
    ).read_text()
    assert 'RankSize = 8' in log


def test_a_rank_that_fails_ends_the_others_and_the_script(ranks):
    """Rank 5 exits with 5 at once; the seven others would sleep for 300 s."""
    status, out, err = ranks.bash(
        'test/train_performance_8p.sh',
        RANK_TABLE_FILE=str(ranks.home / 'table.json'),
        BAD='5',
        RANK_GRACE='2',
        **ranks.variables,
    )
    assert (status, out) == (5, '')
    assert err == (
        'rank 5 ended with status 5, and the other ranks with it; '
        f'see {ranks.root}/output/train_rank_5.log\n'
    )


def test_several_cards_need_a_rank_table(ranks):
    status, out, err = ranks.bash('test/train_full_8p.sh', **ranks.variables)
    assert (status, out) == (2, '')
    assert err == 'RANK_TABLE_FILE: expected the rank table of the 8 cards. Received: none\n'


def test_the_level_file_is_in_the_zoos_form():
    with open(os.path.join(ROOT, 'modelzoo_level.txt')) as file:
        lines = [line.strip().split(':') for line in file]
    assert [name for name, _ in lines] == ['FuncStatus', 'PerfStatus', 'PrecisionStatus']
    assert {level for _, level in lines} <= {'OK', 'NOK', 'POK', 'PERFECT'}


# --- other folders, other names -------------------------------------------------------------------

SHADOWS = ('callbacks.py', 'gitloss.py', 'json.py', 'tensorflow.py', 'trainers/__init__.py')


@pytest.fixture
def shadowed(machine):
    """The user's folder has files with the names of the project's packages, of a module of Python
    and of TensorFlow, and a test/ with a common.sh, as another checkout: each ends what runs it.
    """
    for name in SHADOWS:
        machine.script(machine.home / name, 'raise SystemExit("shadowed")')
    machine.script(machine.home / 'test' / 'common.sh', 'echo shadowed; exit 1')
    machine.variables = {
        'PYTHON': machine.script(machine.home / 'py', f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'),
        'PATH': f'{machine.bin}:{os.path.dirname(shutil.which("make") or sys.executable)}',
    }
    for name in ('callbacks', 'Makefile'):
        copy = shutil.copytree if os.path.isdir(os.path.join(ROOT, name)) else shutil.copy
        copy(os.path.join(ROOT, name), str(machine.root / name))
    return machine


@pytest.mark.parametrize('linked', [False, True])
def test_scripts_train_this_project_from_any_folder(shadowed, linked):
    """An unknown flag is refused by the project's own parser, before TensorFlow is imported."""
    script = shadowed.root / 'test' / 'train_performance_1p.sh'
    if linked:
        link = shadowed.home / 'train'
        link.symlink_to(script)
        script = link
    status, out, err = shadowed.bash(
        str(script), '--stepz=1', cwd=shadowed.home, **shadowed.variables
    )
    assert (status, out) == (2, '')
    assert err.startswith('trainers.run: --stepz: expected a known flag, --steps perhaps')


@pytest.mark.skipif(not shutil.which('make'), reason='make is not installed')
def test_make_of_another_folder_trains_this_project(shadowed):
    command = f'make -f "{shadowed.root}/Makefile" quick ARGS=--stepz=1'
    status, out, err = shadowed.bash('-c', command, cwd=shadowed.home, **shadowed.variables)
    assert (status, out) == (2, '')
    assert err.startswith('trainers.run: --stepz: expected a known flag, --steps perhaps')


def test_a_program_that_is_no_python_trains_nothing(machine):
    """`true` returns 0 for every call, and prints no version."""
    status, out, err = machine.bash('test/train_full_1p.sh', PYTHON=shutil.which('true'))
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('PYTHON: expected a Python 3 that has tensorflow. Received: ')


# --- requirements ---------------------------------------------------------------------------------


def _lines(name):
    with open(os.path.join(ROOT, name)) as file:
        return [line.strip() for line in file if line.strip() and not line.startswith(('#', '-r'))]


def test_package_dependencies_are_lines_of_the_requirements():
    with open(os.path.join(ROOT, 'pyproject.toml'), 'rb') as file:
        project = tomllib.load(file)['project']
    assert set(project['dependencies']) <= set(_lines('requirements.txt'))
    for extra in project['optional-dependencies'].values():
        assert set(extra) <= set(_lines('requirements-dev.txt'))


@pytest.mark.parametrize(
    'lock, version', [('requirements-py37.lock', '3.7'), ('requirements-py311.lock', '3.11')]
)
def test_locks_pin_all_that_is_required(lock, version):
    pins = dict(line.lower().replace('-', '_').split('==') for line in _lines(lock))
    for line in _lines('requirements.txt') + _lines('requirements-dev.txt'):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({'python_version': version}):
            assert wanted.specifier.contains(pins[wanted.name.lower().replace('-', '_')]), line
