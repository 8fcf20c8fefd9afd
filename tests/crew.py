"""Workers of one run, as threads and as processes.

Threads suffice for tests of the group: one server each in one process, over loopback. Whole runs
need processes; as a program this file is a worker with the measuring callbacks, no drawing ones,
and a Witness:

    python tests/crew.py --exp_save_dir=DIR --steps=24 ...
"""

import json
import os
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == '__main__':
    sys.path.insert(0, ROOT)
    import toys  # noqa: F401 - whose network a worker must know

import numpy as np  # noqa: E402

from callbacks.base import Callback  # noqa: E402
from trainers import launch  # noqa: E402
from trainers.workers import engines as distribution  # noqa: E402

WAIT = 120
PROGRAM = (os.path.join(ROOT, 'tests', 'crew.py'),)
STEPS, EVERY, BATCH = 16, 8, 12


def settings_of(folder, name, **changes):
    """After one step the momentum slots are the gradients: 0.9 * 0 + g. 12 validation images are
    one batch, 108 training images nine, 40 test images three and a third: the last batch is padded.
    """
    import toys

    return toys.options(
        folder,
        exp_save_dir=os.path.join(str(folder), name),
        steps=STEPS,
        update_centers=EVERY,
        batch_size=BATCH,
        optimizer='momentum',
        learning_rate=0.01,
        save_every='1',
        keep_checkpoints=STEPS + 1,
        check_replicas=5,
        **changes,
    )


def saved(settings, step):
    """{name: array} of all tensors in the checkpoint of a step."""
    import survival
    from trainers import checkpoints

    path = os.path.join(settings.run_dir, 'ckpt', f'step-{step:08}')
    return survival.tensors(checkpoints.read(path))


def together(size, work, timeout=60.0, device='cpu', dtype='float32'):
    """Runs `work(group, open_session)` in a thread per worker, each with a graph of its own.

    `open_session()` opens the session of a worker once its graph is built. Returns the results, or
    the exceptions, in the order of rank.
    """
    from gitloss.backend import tf
    from helpers import cpu_config

    addresses, found = launch.free_addresses(size), [None] * size
    config = cpu_config()
    groups = [
        distribution.Collectives(addresses, rank, config, timeout, device, dtype)
        for rank in range(size)
    ]

    def one(group):
        with tf.Graph().as_default() as graph:
            try:
                found[group.rank] = work(group, lambda: group.session(graph, config))
            except Exception as error:  # noqa: BLE001 - the test looks at it
                found[group.rank] = error

    threads = [threading.Thread(target=one, args=(group,), daemon=True) for group in groups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return found


class Witness(Callback):
    """Writes the loss of every step, and all variables when the run ends in whichever way, to one
    file per worker.
    """

    def __init__(self):
        self.losses = []

    def build(self):
        from gitloss.backend import tf

        self._variables = {variable.name: variable for variable in tf.global_variables()}

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs['loss'])

    def close(self):
        values = self.handle.session.run(self._variables)
        np.savez(
            os.path.join(self.handle.run_dir, f'witness-{self.handle.rank}.npz'),
            losses=self.losses,
            **{name.replace('/', '|'): value for name, value in values.items()},
        )


class Slow(Callback):
    """Steps of a toy network are too fast for a signal to meet a given one."""

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.03)


def witness(run_dir, rank):
    """(losses, {variable: array}) that the Witness of a worker wrote."""
    with np.load(os.path.join(run_dir, f'witness-{rank}.npz')) as file:
        values = {name.replace('|', '/'): file[name] for name in file.files}
    return values.pop('losses'), values


def trainer_of(settings, group=None, first=()):
    """A Trainer that measures and writes checkpoints and history, with a Witness.

    Args:
      group: the group of workers; None: that of TF_CONFIG.
      first: callbacks that come before all others.
    """
    from callbacks.centers import CenterMeasurement
    from callbacks.checkpoint import Checkpoint
    from callbacks.evaluation import Evaluation
    from callbacks.guards import LossGuard
    from callbacks.history import History
    from gitloss import data
    from trainers import devices
    from trainers.engine.trainer import Trainer

    dataset, device = data.load('mnist', settings.data_folder), devices.choose(settings)
    measures = []
    if settings.evaluate:
        measures = [
            CenterMeasurement(dataset.train, settings.center_init),
            Evaluation(dataset.valid, final_source=dataset.test),
        ]
    callbacks = (
        [LossGuard(settings.max_loss, settings.on_nan == 'rollback')]
        + measures
        + [History(), Checkpoint(), Witness()]
    )
    return Trainer(
        settings,
        dataset,
        list(first) + callbacks,
        device,
        group=group or distribution.choose(settings, device),
    )


class Crew:
    """The processes of one run, which a `with` block ends in any case. They are forked, otherwise
    as trainers.launch starts them.
    """

    def __init__(self, flags, size, logs, program=PROGRAM):
        import forking

        addresses, self._logs = launch.free_addresses(size), str(logs)
        os.makedirs(self._logs, exist_ok=True)
        self.processes = []
        cores = sorted(os.sched_getaffinity(0))
        for rank in range(size):
            task = {'type': 'worker', 'index': rank}
            config = json.dumps({'cluster': {'worker': addresses}, 'task': task})
            environment = dict(os.environ, TF_CONFIG=config)
            process = forking.Process([*program, *flags], self._log(rank), None, environment)
            self.processes.append(process)
            if process.poll() is None:
                os.sched_setaffinity(process.pid, [cores[rank % len(cores)]])

    def _log(self, rank):
        return os.path.join(self._logs, f'worker-{rank}.log')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def until(self, condition):
        limit = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < limit and all(
                process.poll() is None for process in self.processes
            ), self.printed(1)
            time.sleep(0.002)

    def wait(self, but=None):
        """Exit statuses in the order of rank, once all have ended, or all except rank `but`; None
        for one that still runs.
        """
        limit = time.monotonic() + WAIT
        while time.monotonic() < limit and any(
            process.poll() is None for rank, process in enumerate(self.processes) if rank != but
        ):
            time.sleep(0.01)
        return [process.poll() for process in self.processes]

    def printed(self, rank):
        """The output of a worker."""
        with open(self._log(rank), encoding='utf-8', errors='replace') as file:
            return file.read()


if __name__ == '__main__':
    from trainers import run

    sys.exit(
        run.main(
            work=lambda settings: trainer_of(settings, first=[Slow()]).fit() and 0,
            arguments=sys.argv[1:],
        )
    )
