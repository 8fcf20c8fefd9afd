"""Exported models in their own runtimes, behind one interface.

with open_model('gitloss.onnx', batch_size=8) as model:
    embeddings, logits = model(['embeddings', 'logits'], images)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any, Callable, Container, ContextManager, Iterator, NamedTuple, Sequence

import numpy as np

from gitloss import files
from gitloss.errors import check, one_line, reason
from gitloss.quiet import quiet_stderr
from trainers.exporting.packages import LITERT, imported, require
from trainers.options import ROOT

IMAGES = 'input_images'
OUTPUTS = ('embeddings', 'logits', 'predictions')
_WHOLE = 'a whole model with embeddings, as trainers.export writes it'
_LARGEST = 1 << 31  # bytes of a file


class Runtime(NamedTuple):
    """A model that is open.

    name: of the runtime, with its version.
    batch: images in a call; None: any number.
    image_shape: (height, width, channels).
    dtype: of its input, float32 or uint8.
    dim: of the embeddings.
    outputs: names of those of OUTPUTS that it has.
    run: (names, images of that dtype) -> the outputs of these names.
    """

    name: str
    batch: int | None
    image_shape: tuple[int, ...]
    dtype: np.dtype
    dim: int
    outputs: Sequence[str]
    run: Callable[[Sequence[str], np.ndarray], list[np.ndarray]]


class Model:
    """An exported model, for any number of images.

    Attributes:
      name: of its runtime, with the version.
      image_shape: (height, width, channels).
      batch_size: images in a call; less are padded.
      dim: of the embeddings.
      outputs: names, `embeddings` and, with a classifier, `logits` and `predictions`.
    """

    def __init__(self, runtime: Runtime, batch_size: int) -> None:
        self._runtime, self.name, self.dim = runtime, runtime.name, runtime.dim
        self.outputs = runtime.outputs
        self.image_shape, self.batch_size = runtime.image_shape, runtime.batch or batch_size

    def __call__(self, names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        """The outputs `names` of images, pixels 0 to 255, [n, height, width, channels].

        Raises:
          ValueError: images of another shape, or the runtime fails.
        """
        shape = tuple(images.shape[1:])
        check(shape == self.image_shape, 'images', f'the shape {self.image_shape}', shape)
        parts = [
            self._of_batch(names, images[start : start + self.batch_size])
            for start in range(0, len(images), self.batch_size)
        ]
        return [np.concatenate(each) for each in zip(*parts)]

    def _of_batch(self, names: Sequence[str], images: np.ndarray) -> list[np.ndarray]:
        count = len(images)
        images = np.concatenate([images, np.repeat(images[-1:], self.batch_size - count, axis=0)])
        with _failing(self.name, 'that it runs the model'):
            outputs = self._runtime.run(names, images.astype(self._runtime.dtype))
        return [output[:count] for output in outputs]


@contextlib.contextmanager
def _failing(thing: str, expected: str) -> Iterator[None]:
    """Runtimes raise dozens of types of errors."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001
        if isinstance(error, OSError) and error.errno:  # not TensorFlow's, which have none
            raise
        check(False, one_line(thing, 5000), expected, one_line(reason(error)))


def _outputs(names: Container[str]) -> list[str]:
    return [OUTPUTS[0], *(name for name in OUTPUTS[1:] if name in names)]


@contextlib.contextmanager
def _session(tf: Any, load: Callable[[Any], Any]) -> Iterator[Runtime]:
    """`load`: fills the default graph, for a session."""
    on_cpu = tf.ConfigProto(device_count={'GPU': 0})
    with tf.Graph().as_default() as graph, tf.Session(graph=graph, config=on_cpu) as session:
        load(session)
        outputs = _outputs({operation.name for operation in graph.get_operations()})
        tensors = {name: graph.get_tensor_by_name(f'{name}:0') for name in (IMAGES, *outputs)}
        images = tensors[IMAGES]
        dtype, dim = np.dtype(images.dtype.as_numpy_dtype), tensors['embeddings'].shape.as_list()[1]

        def run(names: Sequence[str], batch: np.ndarray) -> list[np.ndarray]:
            return session.run([tensors[name] for name in names], {images: batch})

        batch, *shape = images.shape.as_list()
        yield Runtime(f'tensorflow {tf.__version__}', batch, tuple(shape), dtype, dim, outputs, run)


def _saved_model(path: str, batch_size: int) -> ContextManager[Runtime]:
    from gitloss.backend import tf

    return _session(tf, lambda session: tf.saved_model.load(session, ['serve'], path))


def _frozen(path: str, batch_size: int) -> ContextManager[Runtime]:
    from gitloss.backend import tf

    def load(session: Any) -> None:
        tf.import_graph_def(tf.GraphDef.FromString(files.read(path, _LARGEST)), name='')

    return _session(tf, load)


@contextlib.contextmanager
def _onnx(path: str, batch_size: int) -> Iterator[Runtime]:
    runtime = imported(path, 'onnxruntime')
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4
    session = runtime.InferenceSession(
        files.read(path, _LARGEST), settings, providers=['CPUExecutionProvider']
    )
    (images,) = session.get_inputs()
    batch, *shape = images.shape
    dims = {output.name: output.shape for output in session.get_outputs()}
    dtype = np.dtype(np.uint8 if images.type == 'tensor(uint8)' else np.float32)
    yield Runtime(
        f'onnxruntime {runtime.__version__}',
        batch if isinstance(batch, int) else None,
        tuple(shape),
        dtype,
        dims['embeddings'][1],
        _outputs(dims),
        lambda names, batch: session.run(list(names), {IMAGES: batch}),
    )


def _interpreter(path: str) -> tuple[Any, str]:
    """(a TFLite interpreter, its name)."""
    content = files.read(path, _LARGEST)
    settings = {}
    if LITERT:
        settings = {'num_threads': len(os.sched_getaffinity(0))}
        module = imported(path, 'ai_edge_litert.interpreter')
        name = f'LiteRT {imported(path, "ai_edge_litert").__version__}'
    else:
        from gitloss.backend import tf

        module, name = tf.lite, f'TFLite of tensorflow {tf.__version__}'
    return module.Interpreter(model_content=content, **settings), name


@contextlib.contextmanager
def _tflite(path: str, batch_size: int) -> Iterator[Runtime]:
    with quiet_stderr():  # LiteRT tells which delegate it creates
        interpreter, name = _interpreter(path)
        (images,) = interpreter.get_input_details()
        _, *shape = images['shape'].tolist()
        interpreter.resize_tensor_input(images['index'], [batch_size, *shape])
        interpreter.allocate_tensors()
    outputs = {each['name']: each for each in interpreter.get_output_details()}

    def run(names: Sequence[str], batch: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(images['index'], batch)
        interpreter.invoke()
        return [interpreter.get_tensor(outputs[name]['index']) for name in names]

    dim = int(outputs['embeddings']['shape'][1])
    dtype, shape = np.dtype(images['dtype']), tuple(shape)
    yield Runtime(name, batch_size, shape, dtype, dim, _outputs(outputs), run)


# {ending of the name: (opener, packages)}; a SavedModel is a folder.
_OPENERS: dict[str, tuple[Callable[[str, int], ContextManager[Runtime]], tuple[str, ...]]] = {
    '': (_saved_model, ()),
    '.pb': (_frozen, ()),
    '.onnx': (_onnx, ('onnxruntime',)),
    '.tflite': (_tflite, LITERT),
}


def _ending(path: str) -> str:
    return '' if os.path.isdir(path) else os.path.splitext(path)[1]


def is_model(path: str) -> bool:
    """Whether the path is that of an exported model by its name: a file .pb, .onnx or .tflite, or
    the folder of a SavedModel.
    """
    is_folder = os.path.isfile(os.path.join(path, 'saved_model.pb'))
    return is_folder or (_ending(path) != '' and _ending(path) in _OPENERS)


def check_loads(path: str) -> None:
    """Loads a model in another process: the interpreter of TensorFlow 1.15 does not verify a TFLite
    file, and the process that reads a damaged one ends with it.

    Raises:
      ValueError: that process fails.
    """
    program = 'import sys; from trainers.exporting import runtimes as r\n'
    program += 'with r.open_model(sys.argv[1]): pass'
    command = [sys.executable, '-c', program, os.path.abspath(path)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    received = f'one at which its runtime ends with status {ended.returncode}'
    check(not ended.returncode, one_line(path, 5000), _WHOLE, received)


@contextlib.contextmanager
def open_model(path: str, batch_size: int = 1) -> Iterator[Model]:
    """A context with the Model at a path for which `is_model` holds.

    Args:
      batch_size: images in a call, unless the file says it.

    Raises:
      ValueError: the file is damaged, is no export of an embedding, or its runtime is missing.
      OSError: it cannot be read.
    """
    opener, packages = _OPENERS[_ending(path)]
    require(one_line(path, 5000), *packages)
    with contextlib.ExitStack() as stack:
        with _failing(path, _WHOLE):
            runtime = stack.enter_context(opener(path, batch_size))
        yield Model(runtime, batch_size)
