"""A training step: losses and gradients read the centers from before their update."""

import numpy as np
import pytest

from gitloss import losses
from gitloss.backend import tf
from helpers import all_nodes, graph_session, operations_behind, relative_error, static_shapes
from loss_reference import TOLERANCE, numpy_center, numpy_git, numpy_update


def _training_step(x, labels, form, learning_rate=0.5, alpha=0.5):
    """A step in the order of the trainer. The embeddings are x W; the trained W [2, 2] starts as
    the identity.
    """
    weights = tf.get_variable('weights', initializer=np.eye(2, dtype=np.float32), use_resource=True)
    embeddings = tf.matmul(x, weights)
    center_layer = losses.CenterLoss(4, form=form, alpha=alpha)
    git_layer = losses.GitLoss(4, form=form, share=center_layer)
    loss = center_layer([embeddings, labels]) + git_layer([embeddings, labels])
    optimizer = tf.train.GradientDescentOptimizer(learning_rate)
    gradients = optimizer.compute_gradients(loss, [weights])
    with tf.control_dependencies([loss] + [gradient for gradient, _ in gradients]):
        move = center_layer.update(embeddings, labels)
    return (
        loss,
        gradients[0][0],
        tf.group(optimizer.apply_gradients(gradients), move),
        weights,
        center_layer.centers,
    )


@pytest.mark.parametrize('form', losses.FORMS)
def test_loss_and_gradients_see_the_centers_from_before_the_step(form):
    """Two steps in NumPy: loss and gradient from the old weight and centers, then both are
    updated.
    """
    random = np.random.RandomState(8)
    batches = [
        (random.randn(8, 2).astype(np.float32), random.randint(0, 4, 8).astype(np.int32))
        for _ in range(2)
    ]
    start = random.randn(4, 2).astype(np.float32)
    with graph_session() as session:
        x, labels = tf.placeholder(tf.float32, [8, 2]), tf.placeholder(tf.int32, [8])
        loss, gradient, train, weights, table = _training_step(x, labels, form)
        assign = table.assign(start)
        session.run(tf.global_variables_initializer())
        session.run(assign)
        matrix, centers = np.eye(2), start.astype(np.float64)
        for images, numbers in batches:
            embeddings = np.matmul(images, matrix)
            center, center_gradient = numpy_center(embeddings, numbers, centers, form)
            git, git_gradient = numpy_git(embeddings, numbers, centers, form)
            slope = np.matmul(images.T, center_gradient + git_gradient)
            values = session.run([loss, gradient, train], {x: images, labels: numbers})
            assert values[0] == pytest.approx(center + git, rel=1e-5)
            assert relative_error(values[1], slope) <= TOLERANCE
            centers, matrix = numpy_update(centers, embeddings, numbers, 0.5), matrix - 0.5 * slope
            np.testing.assert_allclose(session.run(table), centers, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(session.run(weights), matrix, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('form', losses.FORMS)
def test_every_read_of_the_centers_comes_before_their_update(form):
    """By the edges of the graph, so that no scheduler can reorder them. All shapes are static, and
    the op types work on an NPU.
    """
    with tf.Graph().as_default() as graph:
        x, labels = tf.zeros([8, 2]), tf.zeros([8], tf.int32)
        _, _, train, _, table = _training_step(x, labels, form)
        (move,) = [op for op in table.handle.consumers() if op.type == 'ResourceScatterSub']
        readers = [
            op for op in table.handle.consumers() if op.type in ('ResourceGather', 'GatherV2')
        ]
        plain_reads = [op for op in table.handle.consumers() if op.type == 'ReadVariableOp']
        # Of center loss, git loss and the update itself.
        assert len(readers) == 3 and operations_behind([move]).issuperset(readers)
        # Keras and `table.handle` make reads that nothing uses; none feeds another op.
        assert all(not tensor.consumers() for op in plain_reads for tensor in op.outputs)
        assert move in operations_behind([train])
        for node in all_nodes(graph):
            assert not node.op.startswith('Unique')
            assert all(shape.is_fully_defined() for shape in static_shapes(node)), node.name
            # 2: DT_DOUBLE.
            assert not any(attribute.type == 2 for attribute in node.attr.values()), node.name
