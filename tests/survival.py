"""What is left of a run that was killed and restarted, compared with a run that nobody disturbed.

Shared by test_chaos.py, test_workers.py and benchmarks/chaos.py; the killing is in killable.py.
"""

import glob
import json
import os

SPEED = ('seconds', 'images_per_sec', 'sec_per_step')  # no two runs agree on these columns


def scalars(run_dir):
    """{tag: {step: [values]}} of all event files of a run, as TensorBoard shows them: a START event
    drops earlier values of its step and of later ones, and a truncated record at the end of a file
    is ignored.
    """
    from gitloss.backend import tf

    found = {}
    for path in sorted(glob.glob(os.path.join(run_dir, 'events.out.tfevents.*'))):
        try:
            for event in tf.train.summary_iterator(path):
                if event.session_log.status == tf.SessionLog.START:
                    for steps in found.values():
                        for step in [step for step in steps if step >= event.step]:
                            del steps[step]
                for value in event.summary.value:
                    if value.HasField('simple_value'):
                        found.setdefault(value.tag, {}).setdefault(event.step, []).append(
                            value.simple_value
                        )
        except tf.errors.DataLossError:
            pass
    return {tag: steps for tag, steps in found.items() if steps}


def tensors(checkpoint):
    """{name: array} of all tensors in a checkpoint."""
    from gitloss.backend import tf

    path = os.path.join(checkpoint.path, 'model')
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name, _ in tf.train.list_variables(path)}


def timeless(value):
    """JSON values without those that depend on the speed of the machine."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in SPEED}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def history(run_dir):
    with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def files(run_dir):
    """Relative paths of all files except event files, whose names contain the time."""
    found = [
        os.path.relpath(os.path.join(folder, name), run_dir)
        for folder, _, names in os.walk(run_dir)
        for name in names
    ]
    return {name for name in found if not name.startswith('events.out.tfevents.')}


def differences(run_dir, twin_dir):
    """How a finished run differs from its undisturbed twin: a list of lines, empty if they are
    equal to the last bit.

    Compares all tensors of the last checkpoint, its manifest, history.jsonl, results.json, the
    scalars of the event files, each of which must occur exactly once, and the list of files. Speeds
    and times are ignored.
    """
    from trainers import checkpoints

    one, other = (
        checkpoints.CheckpointStore(os.path.join(path, 'ckpt')).newest()
        for path in (run_dir, twin_dir)
    )
    if one is None or other is None or one.step != other.step:
        return [f'checkpoints of {[checkpoint and checkpoint.step for checkpoint in (one, other)]}']
    return (
        _in_checkpoints(one, other)
        + _in_measurements(run_dir, twin_dir)
        + _in_scalars(scalars(run_dir), scalars(twin_dir))
        + [f'file {name}' for name in sorted(files(run_dir) ^ files(twin_dir))]
    )


def _in_checkpoints(one, other):
    mine, its = (
        {
            name: (str(value.dtype), value.shape, value.tobytes())
            for name, value in tensors(checkpoint).items()
        }
        for checkpoint in (one, other)
    )
    return [
        f'tensor {name}' for name in sorted(set(mine) | set(its)) if mine.get(name) != its.get(name)
    ] + [
        f'manifest, {name}'
        for name in ('epoch', 'metrics', 'logs', 'totals', 'dataset', 'callbacks')
        if timeless(one.manifest[name]) != timeless(other.manifest[name])
    ]


def _in_measurements(run_dir, twin_dir):
    wrong, rows = [], history(run_dir)
    if len({row['step'] for row in rows}) != len(rows) or timeless(rows) != timeless(
        history(twin_dir)
    ):
        wrong.append(f'history.jsonl, steps {[row["step"] for row in rows]}')
    results = []
    for path in (run_dir, twin_dir):
        with open(os.path.join(path, 'results.json'), encoding='utf-8') as file:
            found = json.load(file)
        results.append(timeless([found['final'], found['best']]))
    return wrong + (['results.json'] if results[0] != results[1] else [])


def _in_scalars(mine, its):
    return [
        f'scalar {tag} at step {step}, {len(values)} times'
        for tag, steps in sorted(mine.items())
        for step, values in sorted(steps.items())
        if len(values) != 1
    ] + [
        f'scalar {tag}'
        for tag in sorted(set(mine) | set(its))
        if sorted(mine.get(tag, {})) != sorted(its.get(tag, {}))
        or (tag.split('/')[-1] not in SPEED and mine[tag] != its[tag])
    ]
