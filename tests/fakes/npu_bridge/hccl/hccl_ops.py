"""npu_bridge.hccl.hccl_ops between ranks that are processes, or threads of one, through files in
the folder that FAKE_HCCL names.

The rank and the number of ranks are those of the environment at the time a graph is built. Ranks
meet by the order in which their
operations were made and by how often each has run: graphs that differ, or a rank that runs
something by itself, hang on the cards; here they give up after FAKE_HCCL_TIMEOUT seconds (60).
"""

import itertools
import os
import time

import numpy as np
import tensorflow.compat.v1 as tf

from .. import NpuRefuses

# Ranks that were waited for in vain. Nobody waits for them again: TensorFlow runs the other ready
# operations one by one, and each would wait.
_gone = []


def _exchange(key, number, rank, size, value):
    """What all ranks send as the `number`-th of one operation, in the order of ranks."""

    def path(number, rank):
        return os.path.join(os.environ['FAKE_HCCL'], f'{key}.{number}.{rank}.npy')

    with open(path(number, rank) + '.tmp', 'wb') as file:
        np.save(file, value)
    os.replace(path(number, rank) + '.tmp', path(number, rank))
    limit = time.monotonic() + (0 if _gone else float(os.environ.get('FAKE_HCCL_TIMEOUT', '60')))
    for other in range(size):
        while not os.path.exists(path(number, other)):
            if time.monotonic() > limit:
                _gone.append(other)
                raise NpuRefuses(f'rank {rank} waits for rank {other} at {key}')
            time.sleep(0.0005)
    if number:  # all have sent this one, so all have read the one before
        os.remove(path(number - 1, rank))
    return [np.load(path(number, other)) for other in range(size)]


def _collective(name, tensor, shape, combine):
    if tensor.dtype == tf.float64:
        raise NpuRefuses(f'{name} of float64')
    if not tensor.shape.is_fully_defined():
        raise NpuRefuses(f'{name} of a dynamic shape, {tensor.shape}')
    rank, size, numbers = (
        int(os.environ['RANK_ID']),
        int(os.environ['RANK_SIZE']),
        itertools.count(),
    )
    made = len(tf.get_collection('hccl'))
    key = '-'.join(
        [name, str(made), tensor.dtype.name] + [str(length) for length in tensor.shape.as_list()]
    )
    with tf.name_scope('hccl/'):
        result = tf.numpy_function(
            lambda value: combine(_exchange(key, next(numbers), rank, size, value)),
            [tensor],
            tensor.dtype,
        )
    tf.add_to_collection('hccl', result)
    result.set_shape(shape)
    return result


def allreduce(tensor, reduction, fusion=1, fusion_id=-1, group='hccl_world_group'):
    if reduction != 'sum':
        raise NpuRefuses(f'reduction {reduction}')
    return _collective(
        'allreduce',
        tensor,
        tensor.shape,
        lambda values: np.sum(values, axis=0, dtype=values[0].dtype),
    )


def allgather(tensor, rank_size, group='hccl_world_group', fusion=0, fusion_id=-1):
    if rank_size != int(os.environ['RANK_SIZE']):
        raise NpuRefuses(f'rank_size {rank_size!r}')
    rows, *rest = tensor.shape.as_list()
    return _collective('allgather', tensor, [rows and rows * rank_size] + rest, np.concatenate)


def broadcast(tensor, root_rank, fusion=2, fusion_id=0, group='hccl_world_group'):
    if not isinstance(tensor, (list, tuple)):
        raise NpuRefuses('broadcast takes a list of tensors')
    return [
        _collective('broadcast', one, one.shape, lambda values: values[root_rank]) for one in tensor
    ]
