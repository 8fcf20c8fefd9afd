"""MODEL.md: a model card, written from what the checkpoint and the export know."""

from __future__ import annotations

from typing import Any, Mapping

from gitloss.errors import one_line
from trainers.exporting.formats import FORMATS

FILE = 'MODEL.md'
_FLAGS = (
    *('head', 'margin', 'scale', 'lambda_c', 'lambda_g', 'embedding_norm', 'normalize', 'dropout'),
    *('optimizer', 'learning_rate', 'schedule', 'steps', 'batch_size', 'augment', 'seed'),
)
_OF_TIME = ('step', 'seconds', 'images_per_sec', 'learning_rate')
_USE = (
    '`images`: {dtype} [n, height, width, channels], pixels 0 to 255; preprocessing is in the '
    'graph. Outputs: {outputs}.'
)
_LIMITS = (
    'To be filled in by those who publish the model: what it must not be used for, whom the data '
    'show, under which licence data and weights are.'
)
_SHOWN = 20  # names of classes
_USES = {
    'saved_model': """model = tf.saved_model.load('saved_model').signatures['serving_default']
found = model(input_images=tf.constant(images))
embeddings = found['embeddings']""",
    'pb': """definition = tf.compat.v1.GraphDef.FromString(open('gitloss.pb', 'rb').read())
tf.import_graph_def(definition, name='')  # in a tf.Graph
embeddings = session.run('embeddings:0', {'input_images:0': images})""",
    'onnx': """session = onnxruntime.InferenceSession('gitloss.onnx')
(embeddings,) = session.run(['embeddings'], {'input_images': images})""",
}
_TFLITE = """interpreter = Interpreter('FILE')  # of ai_edge_litert.interpreter
images_of = interpreter.get_input_details()[0]['index']
interpreter.resize_tensor_input(images_of, images.shape); interpreter.allocate_tensors()
interpreter.set_tensor(images_of, images); interpreter.invoke()
found = {o['name']: interpreter.get_tensor(o['index']) for o in interpreter.get_output_details()}"""


def _number(value: float | None, kind: str) -> str:
    return '' if value is None else format(value, kind)


def _parity(formats: Mapping[str, Any]) -> list[str]:
    rows = [
        '| file | MB | difference | equal predictions | accuracy | of the checkpoint | by |',
        '|---|---|---|---|---|---|---|',
    ]
    for each in formats.values():
        figures = each['parity']
        cells = (
            each['file'],
            _number(each['bytes'] / 1e6, '.2f'),
            _number(figures['difference'], '.1e'),
            _number(figures['equal_predictions'], '.4f'),
            _number(figures['accuracy'], '.4f'),
            _number(figures['checkpoint_accuracy'], '.4f'),
            figures['runtime'],
        )
        rows.append(f'| {" | ".join(cells)} |')
    return rows


def _uses(formats: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, each in formats.items():
        code = _USES.get(name, _TFLITE).replace('FILE', each['file'])
        lines += [f'{FORMATS[name].text}, images per call: {each["batch"]}', '', '```python', code]
        lines += ['```', '']
    return lines


def _losses(options: Mapping[str, Any]) -> str:
    """The terms of the loss that was trained."""
    terms = {'center loss': options.get('lambda_c'), 'git loss': options.get('lambda_g')}
    return ' + '.join([str(options.get('head')), *(name for name in terms if terms[name])])


def _facts(manifest: Mapping[str, Any], dataset: Mapping[str, Any], names: list[str]) -> list[str]:
    options, classes = manifest['options'], dataset['num_classes']
    height, width, channels = dataset['image_shape']
    shown = ', '.join(one_line(name, 100) for name in names[:_SHOWN])
    # A margin below 0 and a scale of 0 stand for those of the head's paper.
    unset = {'margin': -1.0, 'scale': 0.0}
    given = [name for name in _FLAGS if name in options and options[name] != unset.get(name)]
    flags = ' '.join(f'--{name}={options[name]}' for name in given)
    return [
        f'- network: {manifest["model"]}, embeddings of {manifest["outputs"][0]["shape"][1]} '
        f'dimensions, trained with {_losses(options)}',
        f'- data: {one_line(dataset["name"], 200)}, images of {height} x {width} pixels, '
        f'{channels} channels',
        f'- classes: {classes}' + (f': {shown}{", ..." * (len(names) > _SHOWN)}' if shown else ''),
        f'- checkpoint: step {manifest["checkpoint"]["step"]}',
        f'- training: `{flags}`',
    ]


def text(manifest: Mapping[str, Any], dataset: Mapping[str, Any], names: list[str]) -> str:
    """The model card.

    Args:
      manifest: the content of gitloss.json.
      dataset: facts of the training data, of the checkpoint's manifest.
      names: of the classes; [] if they have none.
    """
    first = next(iter(manifest['formats'].values()))['parity']
    metrics = {k: v for k, v in manifest['checkpoint']['metrics'].items() if k not in _OF_TIME}
    lines = ['# Model card', '', *_facts(manifest, dataset, names), '', '## Metrics', '']
    lines += ['| metric | of the checkpoint |', '|---|---|']
    lines += [f'| {name} | {value:.6g} |' for name, value in sorted(metrics.items())]
    outputs = ', '.join(f'`{each["name"]}`' for each in manifest['outputs'])
    lines += ['', '## Use', '', _USE.format(dtype=manifest['input']['dtype'], outputs=outputs), '']
    lines += [*_uses(manifest['formats']), '## Parity', '']
    lines += [f'Compared with the checkpoint on {first["images"]} {first["of"]}.', '']
    lines += [*_parity(manifest['formats']), '', '## Limits and licence', '', _LIMITS]
    return '\n'.join(lines) + '\n'
