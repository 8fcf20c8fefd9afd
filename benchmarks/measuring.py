"""What benchmarks share: the command line, clocks, memory, and cases in separate processes."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


def parser(doc):
    """A parser whose help is the docstring of the program as it stands."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def case_parser(doc):
    """The parser of a program that tries cases which a seed draws."""
    flags = parser(doc)
    flags.add_argument('--cases', type=int, default=100)
    flags.add_argument('--seed', type=int, default=1)
    flags.add_argument('--first', type=int, default=0, help='number of the first case')
    flags.add_argument('--python', action='append')
    flags.add_argument('--keep', help='work in this new folder and leave it')
    return flags


def cores():
    """Number of cores of this process."""
    return len(os.sched_getaffinity(0))


def median_ms(step, steps, warm_up=15):
    """Median time of `steps` calls after the first `warm_up`."""
    times = []
    for number in range(steps + warm_up):
        start = time.perf_counter()
        step()
        if number >= warm_up:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def status_mib(name):
    """A size that the kernel counts of this process, such as VmHWM."""
    with open('/proc/self/status') as file:
        fields = dict(line.split(':', 1) for line in file)
    return int(fields[name].split()[0]) / 1024.0


def memory_mib():
    """(peak, present) resident memory of this process."""
    return status_mib('VmHWM'), status_mib('VmRSS')


def run_case(program, *arguments, python=sys.executable):
    """Runs `program` in a separate process.

    Returns:
      (the JSON in its last line, None), or (None, the last line of its errors).
    """
    command = [python, os.path.abspath(program), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, encoding='utf-8')
    if result.returncode:
        return None, (result.stderr.strip().splitlines() or ['no message'])[-1]
    return json.loads(result.stdout.strip().splitlines()[-1]), None


def write_json(path, content):
    """Writes the file of --json; None: none."""
    if path:
        with open(path, 'w') as file:
            json.dump(content, file, indent=1)


@contextlib.contextmanager
def training_session(settings, dataset):
    """(session, TrainingGraph) of a run at its first step, without trainer and callbacks."""
    from gitloss.backend import tf
    from trainers import devices
    from trainers.engine.graph import TrainingGraph

    device = devices.choose(settings)
    with tf.Graph().as_default():
        net = TrainingGraph(settings, dataset.spec, device, source=dataset.train)
        initial = tf.global_variables_initializer()
        with tf.Session(config=device.config) as session:
            session.run(initial)
            session.run(net.iterator.initializer, {net.first_step: 0})
            yield session, net
