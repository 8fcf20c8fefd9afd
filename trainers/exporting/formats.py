"""The formats of an export, by the names that --format knows."""

from __future__ import annotations

from typing import Callable, NamedTuple

from gitloss.backend import tf
from gitloss.errors import check, check_choice
from trainers.exporting import frozen, onnx, saved_model, tflite
from trainers.exporting.content import Content
from trainers.exporting.packages import LITERT, require


class Format(NamedTuple):
    """A format of an export.

    file: its name in the folder of an export; that of a SavedModel is a folder.
    write: (Content, path) -> None.
    text: what it is, for the model card.
    bound: largest difference of embeddings, see trainers.exporting.parity; None: that of
      --parity_tolerance, unless `cosine` is set.
    cosine: least mean cosine of embeddings instead.
    modules: what writing and checking it imports besides TensorFlow.
    batch: how many images it takes.
    """

    file: str
    write: Callable[[Content, str], None]
    text: str
    bound: float | None = None
    cosine: float | None = None
    modules: tuple[str, ...] = ()
    batch: str = 'any'


_IS_1 = tf.__version__.startswith('1.')  # its converter to TFLite knows no cast from uint8
_RESIZE = '1; others after resize_tensor_input and allocate_tensors'
FORMATS = {
    'saved_model': Format('saved_model', saved_model.write, 'SavedModel'),
    'pb': Format('gitloss.pb', frozen.write, 'frozen graph', batch='that of --export_batch'),
    'onnx': Format(
        'gitloss.onnx',
        onnx.write,
        f'ONNX, opset {onnx.OPSET}',
        modules=('tf2onnx', 'onnx', 'onnxruntime'),
    ),
    'tflite': Format(
        'gitloss.tflite', tflite.write, 'TFLite, float32', modules=LITERT, batch=_RESIZE
    ),
    'tflite_float16': Format(
        'gitloss_float16.tflite',
        tflite.write_float16,
        'TFLite, float16 weights',
        bound=1e-2,
        modules=LITERT,
        batch=_RESIZE,
    ),
    'tflite_int8': Format(
        'gitloss_int8.tflite',
        tflite.write_int8,
        'TFLite, int8',
        cosine=0.95,
        modules=LITERT,
        batch=_RESIZE,
    ),
}


def chosen(names: str, dtype: str) -> dict[str, Format]:
    """The formats of --format, a list of names with commas, or `all`.

    Args:
      dtype: of the images.

    Raises:
      ValueError: an unknown name, a package is not installed, or the format has no such input.
    """
    wanted = list(FORMATS) if names == 'all' else names.split(',')
    for name in wanted:
        check_choice('--format', name, [*FORMATS, 'all'])
        require(f'--format={name}', *FORMATS[name].modules)
        is_possible = dtype == 'float32' or not (_IS_1 and name.startswith('tflite'))
        expected = f'TensorFlow 2 with --input_dtype={dtype}'
        check(is_possible, f'--format={name}', expected, tf.__version__)
    return {name: FORMATS[name] for name in FORMATS if name in wanted}
