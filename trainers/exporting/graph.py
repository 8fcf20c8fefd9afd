"""The inference of a checkpoint as a GraphDef without variables."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, NamedTuple

import numpy as np

from gitloss.backend import tf
from trainers import checkpoints
from trainers.engine.inference import Inference
from trainers.exporting.folding import copied, simplified
from trainers.exporting.runtimes import IMAGES, OUTPUTS

_BATCH = 32  # images in a call of the network of a checkpoint


class Graph(NamedTuple):
    """A GraphDef, and what goes in and comes out: dictionaries of name, tensor, shape and dtype.

    The placeholder `input_images`, [batch, height, width, channels], takes pixels from 0 to 255.
    The outputs are `embeddings` float32 [batch, dim] and, with the classifier, `logits` float32
    [batch, classes] and `predictions` int32 [batch].
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
        self._outputs = {'embeddings': net.embeddings}
        if net.logits is not None:
            self._outputs['logits'] = net.logits
        self.image_shape = tuple(net.images.shape.as_list()[1:])

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs, without `predictions`, of images uint8 or float [n, ...]."""
        fetches = self._outputs
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
            [output.op.name for output in self._outputs.values()],
        )
        # A new graph, in which the names of the outputs are free: scopes of layers have the same.
        with tf.Graph().as_default() as graph:
            images = tf.placeholder(dtype, [None, *self.image_shape], name=IMAGES)
            tensors = tf.import_graph_def(
                frozen,
                {net.images.name: tf.cast(images, tf.float32)},
                [output.name for output in self._outputs.values()],
                name='model',
            )
            for name, tensor in zip(self._outputs, tensors):
                tf.identity(tensor, name=name)
            if 'logits' in self._outputs:
                tf.argmax(tensors[-1], 1, output_type=tf.int32, name='predictions')
            # Without defaults: TensorFlow 1.15, and so CANN, does not know the newer attributes.
            whole = tf.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def
        return simplified(whole, _outputs_of(whole))


def _outputs_of(definition: Any) -> list[str]:
    there = {node.name for node in definition.node}
    return [name for name in OUTPUTS if name in there]


def of_batch(definition: Any, batch: int | None) -> Graph:
    """The inference for `batch` images per call; None: any number."""
    chosen = copied(definition)
    for node in chosen.node:
        if node.op == 'Placeholder':
            node.attr['shape'].shape.dim[0].size = -1 if batch is None else batch
    with tf.Graph().as_default():
        names = [f'{name}:0' for name in (IMAGES, *_outputs_of(chosen))]
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
def network_of(checkpoint: checkpoints.Checkpoint, classifier: bool = True) -> Iterator[Network]:
    """A context with the Network of a checkpoint, on the CPU.

    Args:
      classifier: whether it has logits. Without, class weights are neither built nor read.

    Raises:
      DamagedCheckpoint: the checkpoint is of another model.
    """
    options, spec = checkpoints.options_of(checkpoint), checkpoints.spec_of(checkpoint)
    on_cpu = tf.ConfigProto(device_count={'GPU': 0})
    with checkpoints.session_of(
        checkpoint, lambda: Inference(options, spec, None, classifier=classifier), on_cpu
    ) as (net, session):
        yield Network(net, session)
