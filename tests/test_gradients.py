"""Gradients written by hand, and that the graphs with them are let go of."""

import gc
import weakref

import numpy as np
import pytest

import toys
from gitloss.backend import tf
from gitloss.gradients import custom_gradient
from trainers import run


@custom_gradient
def product(one, other):
    """one * other, with gradients of 2 and 3 times the true ones."""
    return one * other, lambda upstream: (2.0 * upstream * other, 3.0 * upstream * one)


@custom_gradient
def square(x):
    return x * x, lambda upstream: 10.0 * upstream


@pytest.mark.parametrize('function, expected', [(product, (14.0, 15.0)), (square, (10.0,))])
def test_the_gradient_is_the_given_one(function, expected):
    """d/dx 5 x (at 7) is written as 2 * 7, d/dy as 3 * 5; twice the loss has twice the gradient."""
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(5.0), tf.constant(7.0)][: len(expected)]
        result = function(*inputs)
        found = session.run(tf.gradients(2.0 * result, inputs))
        assert session.run(result) == (35.0 if len(expected) == 2 else 25.0)
    np.testing.assert_array_equal(found, 2.0 * np.array(expected))


def test_in_a_function_a_tape_sees_the_given_gradient_too():
    """As above: 2 * 2 * 7 and 2 * 3 * 5."""

    @tf.function
    def gradients(one, other):
        with tf.GradientTape() as tape:
            tape.watch([one, other])
            result = 2.0 * product(one, other)
        return tape.gradient(result, [one, other])

    with tf.Graph().as_default(), tf.Session() as session:
        found = session.run(gradients(tf.constant(5.0), tf.constant(7.0)))
    np.testing.assert_array_equal(found, [28.0, 30.0])


def test_a_graph_is_let_go_of():
    with tf.Graph().as_default() as graph:
        x = tf.constant(1.0)
        tf.gradients(square(x), [x])
        known = weakref.ref(graph)
    del graph, x
    gc.collect()
    assert known() is None


def test_a_training_leaves_no_graph_behind(tmp_path):
    """Neither its graph nor those of functions in it."""

    def graphs():
        gc.collect()
        return {id(one) for one in gc.get_objects() if isinstance(one, tf.Graph)}

    before = graphs()
    assert run.main(toys.flags_of(toys.options(tmp_path, steps=4))) == 0
    assert not graphs() - before
