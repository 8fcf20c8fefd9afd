"""A frozen graph with fewer operations: constants are computed, batch normalisation is folded into
the convolution or dense layer before it, reshapes do not read the size of the batch.

TensorFlow's own optimize_for_inference folds FusedBatchNorm, which the inference of
gitloss.layers.BatchNormalization does not have: it is one product and one sum.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from gitloss.backend import tf

_KERNELS = ('Conv2D', 'DepthwiseConv2dNative', 'MatMul')
_SUMS = ('Add', 'AddV2', 'BiasAdd')


def simplified(definition: Any, outputs: Sequence[str]) -> Any:
    """The GraphDef without what only a training or a changing shape needs.

    Args:
      definition: a frozen GraphDef, float32, channels last, with one placeholder, of any batch.
      outputs: names of the nodes that are wanted.
    """
    names = list(outputs)
    needed = tf.graph_util.extract_sub_graph(definition, names)
    folded = _Nodes(_computed(needed, outputs), outputs)
    for name in list(folded.nodes):
        folded.fold(name)
    result = tf.graph_util.extract_sub_graph(folded.definition(), names)
    for node in result.node:
        node.attr.pop('_output_shapes', None)
    return result


def constant(name: str, value: np.ndarray) -> Any:
    """A NodeDef of the operation Const."""
    node = tf.NodeDef(name=name, op='Const')
    node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(value))
    node.attr['dtype'].type = node.attr['value'].tensor.dtype
    return node


def copied(definition: Any) -> Any:
    """A copy to import: TensorFlow adds the default values of attributes to what it imports."""
    copy = tf.GraphDef()
    copy.CopyFrom(definition)
    return copy


def _source(name: str) -> str:
    """The node of an input of a node."""
    return name.lstrip('^').partition(':')[0]


def _fixed(definition: Any) -> set[str]:
    """Names of the nodes that do not depend on a placeholder."""
    fixed: set[str] = set()
    inputs = {node.name: set(map(_source, node.input)) for node in definition.node}
    roots = {node.name for node in definition.node if node.op in ('Placeholder', 'NoOp')}
    size = -1
    while size < len(fixed):  # as often as the longest chain of constants is long
        size = len(fixed)
        fixed |= {name for name, of in inputs.items() if name not in roots and of <= fixed}
    return fixed


def _values(definition: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The values of nodes that do not depend on a placeholder."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(copied(definition), name='')
        with tf.Session(graph=graph, config=tf.ConfigProto(device_count={'GPU': 0})) as session:
            return dict(zip(names, session.run([f'{name}:0' for name in names])))


def _sizes(definition: Any, batch: int) -> dict[str, list[int | None]]:
    """The shapes of what is reshaped, without the size of the batch, for a batch of a size."""
    reshaped = [node.name for node in definition.node if node.op == 'Reshape']
    with tf.Graph().as_default() as graph:
        (images,) = (node for node in definition.node if node.op == 'Placeholder')
        shape = tf.TensorShape(images.attr['shape'].shape).as_list()
        placeholder = tf.placeholder(images.attr['dtype'].type, [batch, *shape[1:]])
        inputs = {f'{images.name}:0': placeholder}
        tf.import_graph_def(copied(definition), inputs, name='model')
        tensors = [graph.get_tensor_by_name(f'model/{name}:0') for name in reshaped]
    return {name: tensor.shape.as_list()[1:] for name, tensor in zip(reshaped, tensors)}


def _computed(definition: Any, outputs: Sequence[str]) -> Any:
    """The GraphDef with a Const for each value that does not depend on an input, and with reshapes
    to [-1, ...] where the other sizes are the same for batches of 2 and 3.
    """
    fixed, kinds = _fixed(definition), {node.name: node.op for node in definition.node}
    read = {_source(x) for node in definition.node if node.name not in fixed for x in node.input}
    wanted = sorted(name for name in (read | set(outputs)) & fixed if kinds[name] != 'Const')
    values = _values(definition, wanted)
    sizes, others = _sizes(definition, 2), _sizes(definition, 3)
    result = tf.GraphDef(versions=definition.versions)
    for node in definition.node:
        after = sizes.get(node.name)
        if node.name in values:
            node = constant(node.name, values[node.name])
        elif after is not None and after == others[node.name] and None not in after:
            shape = constant(f'{node.name}/shape_of_rows', np.array([-1, *after], np.int32))
            result.node.extend([shape])
            node.input[1] = shape.name
            node.attr['Tshape'].type = tf.int32.as_datatype_enum
        result.node.extend([node])
    return result


class _Nodes:
    """The nodes of a graph by name, with the number of readers of each."""

    def __init__(self, definition: Any, outputs: Sequence[str]) -> None:
        self._versions = definition.versions
        self.nodes = {node.name: node for node in definition.node}
        self._readers = dict.fromkeys([*self.nodes], 0)
        for name in (_source(name) for node in definition.node for name in node.input):
            self._readers[name] += 1
        for name in outputs:
            self._readers[name] += 1

    def definition(self) -> Any:
        """The GraphDef."""
        result = tf.GraphDef(versions=self._versions)
        result.node.extend(self.nodes.values())
        return result

    def _value(self, name: str) -> np.ndarray | None:
        node = self.nodes[_source(name)]
        return tf.make_ndarray(node.attr['value'].tensor) if node.op == 'Const' else None

    def _operands(self, node: Any) -> tuple[Any, np.ndarray] | None:
        """(the node, the constant per channel) that a product or sum is of."""
        for one, other in (node.input[:2], node.input[1::-1]):
            value = self._value(other)
            if value is not None and value.ndim and value.size == value.shape[-1]:
                return self.nodes[_source(one)], value.reshape(-1)
        return None

    def fold(self, name: str) -> None:
        """Folds the factors of a product by channel into the kernel before it, if nothing else
        reads what is between them.
        """
        node = self.nodes[name]
        found = self._operands(node) if node.op == 'Mul' else None
        if found is None or self._readers[found[0].name] != 1:
            return
        before, factors = found
        if before.op in _KERNELS:
            self._scale(node, before, factors)
        elif before.op in _SUMS:  # (x + b) s = x s + b s
            inner = self._operands(before)
            if inner is None or inner[0].op not in _KERNELS or self._readers[inner[0].name] != 1:
                return
            kernel, shift = inner
            if self._scale(before, kernel, factors):
                scaled = constant(f'{name}/shift', shift * factors)
                self.nodes[scaled.name] = scaled
                node.op, node.input[:] = 'AddV2', [before.name, scaled.name]

    def _scale(self, node: Any, kernel: Any, factors: np.ndarray) -> bool:
        """Makes `node` what `kernel` is, times the factors of its output's channels. Whether the
        weights are constant and fit.
        """
        weights, settings = self._value(kernel.input[1]), kernel.attr
        is_first = 'data_format' in settings and settings['data_format'].s != b'NHWC'
        if weights is None or is_first:
            return False
        shape: tuple[int, ...] = (1, weights.shape[-1])
        if kernel.op == 'DepthwiseConv2dNative':
            shape = weights.shape[2:]
        elif 'transpose_b' in settings and settings['transpose_b'].b:
            shape = (weights.shape[0], 1)
        if factors.size != np.prod(shape):
            return False
        scaled = constant(f'{node.name}/kernel', weights * factors.reshape(shape))
        self.nodes[scaled.name] = scaled
        name, first = node.name, kernel.input[0]
        node.CopyFrom(kernel)
        node.name, node.input[:] = name, [first, scaled.name]
        return True
