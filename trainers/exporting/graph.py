"""The inference of a checkpoint as a GraphDef without variables."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, NamedTuple

import numpy as np

from gitloss.backend import tf
from trainers import checkpoints
from trainers.engine.inference import Inference
from trainers.exporting.folding import copied, simplified

IMAGES = 'input_images'
OUTPUTS = ('embeddings', 'logits', 'predictions')
_BATCH = 32  # images in a call of the network of a checkpoint


class Graph(NamedTuple):
    """A GraphDef, and what goes in and comes out: dictionaries of name, tensor, shape and dtype.

    The placeholder `input_images`, [batch, height, width, channels], takes pixels from 0 to 255.
    The outputs are `embeddings` float32 [batch, dim], `logits` float32 [batch, classes] and
    `predictions` int32 [batch].
    """

    definition: Any
    images: dict[str, Any]
    outputs: list[dict[str, Any]]


class Network:
    """The network of a checkpoint in a session, for any batch.

    Attributes:
      image_shape: (height, width, channels).
    """

    def __init__(self, net: Inference, session: Any) -> None:
        self._net, self._session = net, session
        self.image_shape = tuple(net.images.shape.as_list()[1:])

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs, without `predictions`, of images uint8 or float [n, ...]."""
        fetches = {'embeddings': self._net.embeddings, 'logits': self._net.logits}
        parts = [
            self._session.run(fetches, {self._net.images: images[start : start + _BATCH]})
            for start in range(0, len(images), _BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in fetches}

    def definition(self, dtype: str = 'float32') -> Any:
        """The inference, see Graph, for any batch: a GraphDef.

        Args:
          dtype: of the images, float32 or uint8.
        """
        net = self._net
        frozen = tf.graph_util.convert_variables_to_constants(
            self._session,
            self._session.graph.as_graph_def(),
            [net.embeddings.op.name, net.logits.op.name],
        )
        # A new graph, in which the names of the outputs are free: scopes of layers have the same.
        with tf.Graph().as_default() as graph:
            images = tf.placeholder(dtype, [None, *self.image_shape], name=IMAGES)
            embeddings, logits = tf.import_graph_def(
                frozen,
                {net.images.name: tf.cast(images, tf.float32)},
                [net.embeddings.name, net.logits.name],
                name='model',
            )
            tf.identity(embeddings, name='embeddings')
            tf.identity(logits, name='logits')
            tf.argmax(logits, 1, output_type=tf.int32, name='predictions')
            # Without defaults: TensorFlow 1.15, and so CANN, does not know the newer attributes.
            whole = tf.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def
        return simplified(whole, OUTPUTS)


def of_batch(definition: Any, batch: int | None) -> Graph:
    """The inference for `batch` images per call; None: any number."""
    chosen = copied(definition)
    for node in chosen.node:
        if node.op == 'Placeholder':
            node.attr['shape'].shape.dim[0].size = -1 if batch is None else batch
    with tf.Graph().as_default():
        names = [f'{name}:0' for name in (IMAGES, *OUTPUTS)]
        images, *outputs = tf.import_graph_def(copied(chosen), return_elements=names, name='')
        return Graph(chosen, _facts(images), [_facts(tensor) for tensor in outputs])


def _facts(tensor: Any) -> dict[str, Any]:
    return {
        'name': tensor.op.name,
        'tensor': tensor.name,
        'shape': tensor.shape.as_list(),
        'dtype': tensor.dtype.name,
    }


@contextlib.contextmanager
def network_of(checkpoint: checkpoints.Checkpoint) -> Iterator[Network]:
    """A context with the Network of a checkpoint, on the CPU.

    Raises:
      DamagedCheckpoint: the checkpoint is of another model.
    """
    options, spec = checkpoints.options_of(checkpoint), checkpoints.spec_of(checkpoint)
    on_cpu = tf.ConfigProto(device_count={'GPU': 0})
    with checkpoints.session_of(checkpoint, lambda: Inference(options, spec, None), on_cpu) as (
        net,
        session,
    ):
        yield Network(net, session)
