"""What a manifest says, when a run goes on from it."""

import functools
import io
import os
import shutil

import pytest

import toys
from callbacks.centers import CenterMeasurement
from callbacks.checkpoint import Checkpoint
from callbacks.evaluation import Evaluation
from callbacks.history import History
from damage.cases import expecting, lasting_folder, logging_to, said
from damage.manifests import ODD, put, rewrite
from gitloss import data
from gitloss.backend import tf
from runs import StopAt, trainer_of
from trainers import checkpoints
from trainers.checkpoints import rundir
from trainers.engine import resuming


def _trainer(settings, *callbacks):
    dataset = data.load('mnist', settings.data_folder)
    measuring = [CenterMeasurement(dataset.train), Evaluation(dataset.valid)]
    return trainer_of(settings, [*measuring, History(), Checkpoint(), *callbacks], dataset)


@functools.lru_cache(None)
def stopped_run():
    """Options of a run that ended with a checkpoint of step 6, which holds the sums of two steps,
    and a built Trainer that may continue it.
    """
    settings = toys.options(lasting_folder(), steps=8, save_every='6', keep_checkpoints=1)
    with logging_to(io.StringIO()):
        with pytest.raises(KeyboardInterrupt):
            _trainer(settings, StopAt(7)).fit()
        trainer = _trainer(settings)
        with tf.Graph().as_default():
            trainer.build()
            trainer.runtime.open()
    return settings, trainer


def _resume(folder, change):
    """Changes the newest manifest of a copy of the run, and goes on from it as a run does."""
    settings, trainer = stopped_run()
    store = checkpoints.CheckpointStore(os.path.join(folder, 'ckpt'))
    shutil.copytree(os.path.join(settings.run_dir, 'ckpt'), store.folder)
    rewrite(store.paths()[-1], change)
    with logging_to(io.StringIO()) as lines:
        try:
            found = rundir.checkpoint_to_continue(
                'auto', store, settings.as_dict(), trainer.saving.facts['dataset']
            )
            if found is None:
                return 'none left'
            resuming.restore(trainer.runtime, trainer.callbacks, found)
        except ValueError as error:
            return said(error, store.folder, '--')
    outcome = 'passed over' if 'passed over' in lines.getvalue() else 'correct'
    step = trainer.runtime.step
    assert step == found.step and (outcome == 'correct') == (step == 6)
    return outcome


def _case(name, change, *outcomes):
    return expecting('manifest at resume', name, lambda folder: _resume(folder, change), *outcomes)


def cases():
    yield _case('as it was', lambda manifest: None, 'correct')
    for key in ('epoch', 'logs', 'totals', 'timing', 'callbacks', 'options', 'dataset'):
        for name, value in ODD:
            # Sums that are no numbers are as bad as none; an odd object elsewhere may be one to go
            # on from or not.
            if isinstance(value, dict) and key not in ('epoch', 'totals', 'timing'):
                outcomes = ('correct', 'refused')
            else:
                outcomes = ('passed over',)
            yield _case(f'{key} {name}', put(key, value), *outcomes)
    for callback in ('CenterMeasurement', 'History'):
        for name, value in ODD:
            outcome = {
                ('CenterMeasurement', 'list'): 'correct',
                (callback, 'huge'): 'passed over',  # a whole number beyond a float
            }.get((callback, name), 'refused')
            yield _case(f'{callback} {name}', put('callbacks', callback, value), outcome)
    yield from _single_cases()


def _single_cases():
    yield _case('rows of text', put('callbacks', 'History', 'rows', 'abc'), 'refused')
    yield _case('rows of numbers', put('callbacks', 'History', 'rows', [1, 2]), 'refused')
    for seconds in (-1, float('nan'), float('inf')):
        yield _case(f'{seconds} s', put('callbacks', 'History', 'seconds', seconds), 'refused')
    yield _case('2^31 skipped steps', put('timing', 'skipped', 1 << 31), 'refused')
    yield _case('a state of 128 bits', put('callbacks', 'Nobody', 1 << 127), 'correct')  # PCG64's
    yield _case('6 measurements in 6 steps', put('epoch', 6), 'correct')
    yield _case('7 measurements in 6 steps', put('epoch', 7), 'passed over')
    yield _case('a callback that is not there', put('callbacks', 'Nobody', [1]), 'correct')
    yield _case('other sums', put('totals', {'loss': 1.0}), 'refused')
    yield _case('sums of no step', put('totals', 'steps', 0), 'refused')
    yield _case('sums of no time', put('totals', 'seconds', 0.0), 'refused')
    for group, name, value in (
        ('totals', 'seconds', float('nan')),
        ('totals', 'loss', float('inf')),  # as JSON reads 1e400
        ('totals', 'loss', -float('inf')),
        ('totals', 'learning_rate', 10**400),  # beyond a float
        ('timing', 'seconds', float('nan')),
        ('timing', 'seconds', -5),
        ('timing', 'steps', float('inf')),
        ('timing', 'steps', 10**400),
    ):
        yield _case(f'{name} of {value} in {group}', put(group, name, value), 'passed over')
    yield _case('another seed', put('options', 'seed', 5), 'refused')
    yield _case('a seed of text', put('options', 'seed', 'a\nb'), 'refused')
    yield _case('a huge number of classes', put('dataset', 'num_classes', 10**400), 'passed over')
    yield _case('another number of classes', put('dataset', 'num_classes', 11), 'refused')
