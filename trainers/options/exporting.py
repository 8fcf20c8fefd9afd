"""The options for exports."""

from __future__ import annotations

import dataclasses
import functools

from trainers.options.spec import option

EXPORT_FORMATS = ('saved_model', 'pb', 'onnx', 'tflite', 'tflite_float16', 'tflite_int8')


def _are_formats(text: str) -> bool:
    return text == 'all' or all(name in EXPORT_FORMATS for name in text.split(','))


_export = functools.partial(
    option, group='export', commands=('export',), resume=True, hyperparameter=False
)


@dataclasses.dataclass(frozen=True)
class Exporting:
    """The fourth part of Options."""

    format: str = _export(
        'pb',
        'Formats of the export, separated by commas, or all. docs/export.md describes them.',
        accepts=(_are_formats, f'some of {", ".join(EXPORT_FORMATS)}, or all'),
    )
    export_dir: str = _export(
        '',
        "Folder of the export. Default: export in the run's folder.",
    )
    classifier: bool = _export(
        True,
        'Export logits and predictions, too. --noclassifier: the embeddings alone, without reading '
        'the class weights.',
    )
    export_batch: int = _export(
        1,
        'Images per call of the exported frozen graph (pb), whose shapes are static. The other '
        'formats take any number.',
        low=1,
        high=1 << 20,
    )
    input_dtype: str = _export(
        'float32',
        'Type of the pixels that the exported files take, 0 to 255.',
        choices=('float32', 'uint8'),
    )
    parity_tolerance: float = _export(
        1e-5,
        'Largest difference of the embeddings of an exported file of float32 from those of the '
        'checkpoint, relative to their length. Above it nothing is exported.',
        low=0.0,
        high=1.0,
    )
