"""TFLite files: float32, float16 weights, and int8 with calibrated activations."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Callable, Iterator

from gitloss.backend import tf
from gitloss.errors import ExportError, one_line, reason
from gitloss.files import write_atomically
from gitloss.quiet import quiet_stderr
from trainers.exporting.content import Content


@contextlib.contextmanager
def _own_programs() -> Iterator[None]:
    """TensorFlow 1.15 starts its converter by name: the one beside this interpreter is meant."""
    before = os.environ.get('PATH', os.defpath)
    os.environ['PATH'] = os.path.dirname(sys.executable) + os.pathsep + before
    try:
        yield
    finally:
        os.environ['PATH'] = before


def _convert(content: Content, path: str, adjust: Callable[[Any], None]) -> None:
    """Writes a TFLite file.

    Args:
      adjust: sets the attributes of the converter.
    """
    facts, graph = content.graph, path + '.graph'
    write_atomically(graph, facts.definition.SerializeToString())
    converter = tf.lite.TFLiteConverter.from_frozen_graph(
        graph, [facts.images['name']], [each['name'] for each in facts.outputs]
    )
    os.remove(graph)
    adjust(converter)
    try:
        with _own_programs(), quiet_stderr():
            converted = converter.convert()
    except Exception as error:  # noqa: BLE001 - the converter raises what it likes
        # What TensorFlow 1.15 begins with says nothing.
        cause = reason(RuntimeError(str(error).replace('See console for info.', '').strip()))
        raise ExportError(f'TFLite: expected a graph that converts. Received: {one_line(cause)}')
    write_atomically(path, converted)


def write(content: Content, path: str) -> None:
    """Writes weights and arithmetic of float32."""
    _convert(content, path, lambda converter: None)


def write_float16(content: Content, path: str) -> None:
    """Writes weights of float16. A CPU computes with them in float32."""

    def adjust(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    _convert(content, path, adjust)


def write_int8(content: Content, path: str) -> None:
    """Writes weights and activations of int8; the ranges of the activations are those of the
    calibration images. An operation without an integer kernel stays in float32.
    """
    dtype = content.graph.images['dtype']
    images = content.calibration().astype(dtype)

    def adjust(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        kinds = tf.lite.OpsSet
        converter.target_spec.supported_ops = [kinds.TFLITE_BUILTINS_INT8, kinds.TFLITE_BUILTINS]

    _convert(content, path, adjust)
