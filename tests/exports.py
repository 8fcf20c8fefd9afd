"""Exports of runs, for tests."""

import contextlib
import json
import os
import subprocess
import tempfile
from unittest import mock

import numpy as np

import forking
from gitloss.backend import tf
from trainers import export
from trainers.exporting import graph, parity
from trainers.exporting.folding import constant

__all__ = ['constant', 'exported', 'forked_parity', 'frozen', 'outputs_of', 'relative']


@contextlib.contextmanager
def forked_parity():
    """The process that compares exported files with their checkpoint is a fork: it knows as little
    of the checkpoint, and need not import TensorFlow.
    """

    def run(command, **_):
        with tempfile.TemporaryDirectory() as folder:
            ended = forking.run(command[1:], folder)
        return subprocess.CompletedProcess(command, ended.returncode, b'', ended.stderr.encode())

    with mock.patch.object(parity, 'subprocess', mock.Mock(run=run)):
        yield


def frozen(checkpoint, batch=None, dtype='float32'):
    """The GraphDef of the inference of a checkpoint."""
    with graph.network_of(checkpoint) as network:
        return graph.of_batch(network.definition(dtype), batch).definition


def outputs_of(definition, images, names=('embeddings', 'logits', 'predictions')):
    """The outputs of a GraphDef for images."""
    with tf.Graph().as_default() as new, tf.Session(graph=new) as session:
        tf.import_graph_def(definition, name='')
        return session.run([f'{name}:0' for name in names], {'input_images:0': images})


def exported(run_dir, *flags):
    """The gitloss.json of a new export in the default folder."""
    assert export.main([f'--ckpt_path={run_dir}', *flags]) == 0
    with open(os.path.join(run_dir, 'export', 'gitloss.json')) as file:
        return json.load(file)


def relative(found, expected):
    """The largest distance of two embeddings relative to the length of the second one."""
    lengths = np.linalg.norm(expected, axis=1)
    return np.max(np.linalg.norm(found - expected, axis=1) / lengths)
