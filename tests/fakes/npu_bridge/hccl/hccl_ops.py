"""npu_bridge.hccl.hccl_ops between the threads of one process, each of them a rank with a graph and a session of its own.

The rank and the number of ranks are those of the environment at the time a graph is built. Ranks meet in the order of their operations,
so graphs that differ hang, as on the cards; here they give up after ten seconds.
"""
import os
import threading

import numpy as np
import tensorflow.compat.v1 as tf

from .. import NpuRefuses

_meeting, _sent = {}, {}
_lock = threading.Lock()


def _exchange(key, rank, size, value):
    """What all ranks sent under one key, in the order of ranks."""
    with _lock:
        barrier = _meeting.setdefault(key, threading.Barrier(size))
        _sent.setdefault(key, {})[rank] = value
    try:
        barrier.wait(10)
        everything = [_sent[key][number] for number in range(size)]
        barrier.wait(10)  # nobody sends again before all have read
    except threading.BrokenBarrierError:
        raise NpuRefuses('rank %d waits for the others at %s' % (rank, key))
    return everything


def _collective(name, tensor, shape, combine):
    if tensor.dtype == tf.float64:
        raise NpuRefuses('%s of float64' % name)
    if not tensor.shape.is_fully_defined():
        raise NpuRefuses('%s of a dynamic shape, %s' % (name, tensor.shape))
    rank, size = int(os.environ['RANK_ID']), int(os.environ['RANK_SIZE'])
    before = tf.get_collection('hccl')
    key = '%s %d %s %s' % (name, len(before), tensor.dtype.name, tensor.shape)
    with tf.control_dependencies(before[-1:]):  # one after the other, as a card's graph compiler puts them
        result = tf.numpy_function(lambda value: combine(_exchange(key, rank, size, value)), [tensor], tensor.dtype)
    tf.add_to_collection('hccl', result)
    result.set_shape(shape)
    return result


def allreduce(tensor, reduction, fusion=1, fusion_id=-1, group='hccl_world_group'):
    if reduction != 'sum':
        raise NpuRefuses('reduction %s' % reduction)
    return _collective('allreduce', tensor, tensor.shape, lambda values: np.sum(values, axis=0, dtype=values[0].dtype))


def allgather(tensor, rank_size, group='hccl_world_group', fusion=0, fusion_id=-1):
    if rank_size != int(os.environ['RANK_SIZE']):
        raise NpuRefuses('rank_size %r' % rank_size)
    shape = tensor.shape.as_list()
    return _collective('allgather', tensor, [shape[0] * rank_size] + shape[1:], np.concatenate)


def broadcast(tensor, root_rank, fusion=2, fusion_id=0, group='hccl_world_group'):
    if not isinstance(tensor, (list, tuple)):
        raise NpuRefuses('broadcast takes a list of tensors')
    return [_collective('broadcast', one, one.shape, lambda values: values[root_rank]) for one in tensor]
