"""The optimizations of the training change no result: the real trainer against a naive Git loss on
real images.

They are oneDNN, one operation at a time on all cores, the input pipeline, the hand-written gradient
of the git term and, on TensorFlow 1.15, the gradients of convolutions written as convolutions.
"""

import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gitloss import convolution, data
from gitloss.backend import tf
from helpers import Losses
from trainers import devices
from trainers.engine.trainer import Trainer
from trainers.options import ROOT, Options

BATCH, RATES, STEPS = 16, {'adam': 1e-3, 'momentum': 0.01}, {'adam': 80, 'momentum': 50}


@functools.lru_cache(None)
def plain_losses():
    """{optimizer: (losses, losses with every initial weight moved by its last bit)} of a process
    without oneDNN.
    """
    command = [sys.executable, os.path.join(ROOT, 'tests', 'plain.py'), str(BATCH)]
    result = subprocess.run(
        command + [f'{name}={rate!r},{STEPS[name]}' for name, rate in RATES.items()],
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert result.returncode == 0, result.stderr
    return {
        name: np.array(pair) for name, pair in json.loads(result.stdout.splitlines()[-1]).items()
    }


@pytest.mark.parametrize('optimizer', sorted(RATES))
def test_the_loss_curve_is_the_plain_ones(tmp_path, optimizer):
    """Sums in another order differ by about 1e-7, and the first ten losses differ by little more.
    Then the training amplifies the difference; Adam more, because it divides by the size of a
    gradient that may be pure rounding error. So over all STEPS the yardstick is the naive training
    itself, started from weights moved by their last bit: the difference may be at most five times
    as large, and with momentum at most 1e-3.
    """
    plain, moved = plain_losses()[optimizer]
    settings = Options(
        exp_save_dir=str(tmp_path / 'run'),
        steps=STEPS[optimizer],
        update_centers=STEPS[optimizer],
        batch_size=BATCH,
        evaluate=False,
        device='cpu',
        optimizer=optimizer,
        learning_rate=RATES[optimizer],
    )
    watch = Losses()
    trainer = Trainer(
        settings, data.load('mnist', settings.data_folder), [watch], devices.choose(settings)
    )
    trainer.fit()
    fast = np.array(watch.seen)
    assert (fast != plain).any()  # it is a different computation
    np.testing.assert_allclose(fast[:10], plain[:10], rtol=1e-5)
    rounding = np.abs(moved / plain - 1).max()
    assert np.abs(fast / plain - 1).max() <= min(
        5 * rounding + 1e-6, 1e-3 if optimizer == 'momentum' else 0.1
    )
    # Momentum has hardly begun to learn at that rate.
    assert optimizer == 'momentum' or plain[-10:].mean() < plain[:10].mean() - 0.1
    ours = {
        op.get_attr('_gradient_op_type')
        for op in watch.handle.session.graph.get_operations()
        if '_gradient_op_type' in op.node_def.attr
    }
    assert (convolution.NAME.encode() in ours) == tf.__version__.startswith('1.')


def test_the_session_of_a_cpu_runs_one_operation_at_a_time_on_all_cores():
    """-1: by the thread that calls it."""
    config = devices.choose(Options(device='cpu')).config
    assert (config.inter_op_parallelism_threads, config.intra_op_parallelism_threads) == (
        -1,
        len(os.sched_getaffinity(0)),
    )


@pytest.mark.parametrize('given, expected', [(None, '1'), ('0', '0')])
def test_onednn_is_switched_on_before_tensorflow_is_imported_unless_the_user_has_decided(
    given, expected
):
    environment = {
        name: value for name, value in os.environ.items() if name != 'TF_ENABLE_ONEDNN_OPTS'
    }
    if given:
        environment['TF_ENABLE_ONEDNN_OPTS'] = given
    code = (
        # importing TensorFlow fails, which is quick
        "import os, sys; sys.modules['tensorflow'] = None\n"
        'try: import gitloss.backend\n'
        "except ImportError: print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == expected, result.stderr
