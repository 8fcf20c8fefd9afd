"""What describes an export: gitloss.json, for programs, and the atc command."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any, Mapping, Sequence

from gitloss import files
from gitloss.errors import check, one_line, reason
from trainers import checkpoints, command, loading
from trainers.exporting import packages, runtimes
from trainers.exporting.content import Content
from trainers.exporting.formats import FORMATS
from trainers.exporting.onnx import OPSET
from trainers.exporting.packages import LITERT

FILE = 'gitloss.json'
_SOC = 'Ascend310'  # the card of the published model


def atc_command(path: str, images: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]) -> str:
    """The command that converts the frozen graph to an offline model in the same folder."""
    source, target = (shlex.quote(place) for place in (path, os.path.splitext(path)[0]))
    shape = ','.join(map(str, images['shape']))
    nodes = ';'.join(each['tensor'] for each in outputs)
    return (
        f'atc --model={source} --framework=3 --output={target} '
        f'--input_shape="{images["name"]}:{shape}" --out_nodes="{nodes}" --soc_version={_SOC}'
    )


def _described(folder: str) -> dict[str, Any]:
    """The content of the gitloss.json in a folder; {} if there is none.

    Raises:
      ValueError: it is damaged; OSError: it cannot be read.
    """
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        return {}
    try:
        content = json.loads(files.read(path, 1 << 26).decode())
        sums = [(each['file'], each['sha256']) for each in content['formats'].values()]
        check(sums and content['checkpoint']['files'], path, 'files', 'none')
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        check(False, one_line(path, 5000), 'what trainers.export writes', reason(error))
    return content


def listed(folder: str) -> list[str]:
    """The models of the export in a folder; [] if there is none, or gitloss.json is damaged."""
    try:
        formats = _described(folder)['formats']
    except (OSError, ValueError, KeyError):
        return []
    return [each.file for name, each in FORMATS.items() if name in formats]


def model_at(path: str) -> str:
    """The exported model at a path: a file, the folder of a SavedModel, or the first file of an
    export in a folder; '' if there is none.
    """
    if runtimes.is_model(path):
        return path
    is_checkpoint = os.path.isfile(os.path.join(path, checkpoints.FILE))
    return '' if is_checkpoint else next((os.path.join(path, n) for n in listed(path)), '')


def of_model(path: str) -> tuple[dict[str, Any], list[str]]:
    """(what tells the embeddings of an exported model from others, the names of its classes). The
    file is verified: by its sum, or by loading it in another process.

    Those of a file of float32 are those of its checkpoint: both may share a gallery.

    Raises:
      ValueError: the file is another than the one that the gitloss.json beside it describes.
      OSError: a file cannot be read.
    """
    folder, name = os.path.split(os.path.abspath(path))
    shown, found, content = one_line(path, 5000), digests(path), _described(folder)
    facts, is_verified = {name: found['sha256']}, bool(LITERT) or not name.endswith('.tflite')
    for kind, each in content.get('formats', {}).items():
        if each['file'] != name:
            continue
        expected = f'the SHA-256 {each["sha256"]} as in {FILE}'
        check(found['sha256'] == each['sha256'], shown, expected, found['sha256'])
        is_verified = True
        if kind in FORMATS and FORMATS[kind].bound is None and FORMATS[kind].cosine is None:
            facts = content['checkpoint']['files']
    if not is_verified:
        runtimes.check_loads(path)
    return facts, loading.classes_in(folder)


def digests(path: str) -> dict[str, Any]:
    """{'bytes', 'sha256'} of a file; of the GraphDef of a SavedModel, which is all that it has.

    Raises:
      OSError: it cannot be read.
    """
    if os.path.isdir(path):
        path = os.path.join(path, 'saved_model.pb')
    return {'bytes': os.path.getsize(path), 'sha256': files.digest(path)}


def _versions() -> dict[str, Any]:
    modules = ('tf2onnx', 'onnx')  # runtimes tell theirs in the comparison
    found = {name: packages.version(name) for name in modules}
    return dict(command.versions(), **{name: text for name, text in found.items() if text})


def _formats(
    content: Content, folder: str, parity: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """{format: its file, how many images that takes, its sum, and how it compares}."""
    described: dict[str, dict[str, Any]] = {}
    for name, figures in parity.items():
        chosen = FORMATS[name]
        described[name] = {
            'file': chosen.file,
            'batch': chosen.batch,
            **digests(os.path.join(folder, chosen.file)),
            'parity': dict(figures),
        }
    if 'onnx' in described:
        described['onnx']['opset'] = OPSET
    if 'pb' in described:
        described['pb']['batch'] = content.fixed.images['shape'][0]
    return described


def manifest(
    checkpoint: checkpoints.Checkpoint,
    content: Content,
    folder: str,
    parity: Mapping[str, Mapping[str, Any]],
    labels: str | None,
) -> dict[str, Any]:
    """The content of gitloss.json.

    Args:
      folder: where the files are.
      parity: the figures of each format.
      labels: name of the file with the names of the classes.
    """
    saved, (graph, fixed, _) = checkpoint.manifest, content
    divisor = saved['dataset']['preprocessing']['divisor']
    atc = atc_command(FORMATS['pb'].file, fixed.images, fixed.outputs)
    return {
        'formats': _formats(content, folder, parity),
        'input': dict(graph.images, pixels='0 to 255', mean_image='in the graph'),
        'outputs': graph.outputs,
        'preprocessing': {
            'in_the_graph': True,
            'formula': 'pixels / divisor - mean_image',
            'divisor': divisor,
        },
        'labels': labels,
        'checkpoint': {
            'path': checkpoint.path,
            'step': checkpoint.step,
            'metrics': saved.get('metrics', {}),
            'files': saved['files'],
        },
        'model': saved['options'].get('model'),
        'options': checkpoints.options_of(checkpoint).hyperparameters(),
        'versions': _versions(),
        **({'atc': atc} if 'pb' in parity else {}),
    }
