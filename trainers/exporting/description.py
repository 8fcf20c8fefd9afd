"""What describes an export: gitloss.json, for programs, and the atc command."""

from __future__ import annotations

import os
import shlex
from typing import Any, Mapping, Sequence

from gitloss import files
from trainers import checkpoints, command
from trainers.exporting import packages
from trainers.exporting.content import Content
from trainers.exporting.formats import FORMATS
from trainers.exporting.onnx import OPSET

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


def digests(path: str) -> dict[str, Any]:
    """{'bytes', 'sha256'} of a file; of the GraphDef of a SavedModel, which is all that it has."""
    if os.path.isdir(path):
        path = os.path.join(path, 'saved_model.pb')
    return {'bytes': os.path.getsize(path), 'sha256': files.digest(path)}


def _versions() -> dict[str, Any]:
    modules = ('tf2onnx', 'onnx', 'onnxruntime', 'ai_edge_litert')
    found = {name: packages.version(name) for name in modules}
    return dict(command.versions(), **{name: text for name, text in found.items() if text})


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
    described = {
        name: dict(
            file=FORMATS[name].file,
            batch=FORMATS[name].batch,
            **digests(os.path.join(folder, FORMATS[name].file)),
            parity=dict(figures),
        )
        for name, figures in parity.items()
    }
    divisor = saved['dataset']['preprocessing']['divisor']
    result = {
        'formats': described,
        'input': dict(graph.images, pixels='0 to 255', channels_last=True),
        'outputs': graph.outputs,
        'preprocessing': {'in_the_graph': True, 'divisor': divisor, 'mean': 'of the checkpoint'},
        'labels': labels,
        'checkpoint': {
            'path': checkpoint.path,
            'step': checkpoint.step,
            'metrics': saved.get('metrics', {}),
            'files': saved['files'],
        },
        'model': saved['options'].get('model'),
        'options': saved['options'],
        'versions': _versions(),
    }
    if 'onnx' in described:
        described['onnx']['opset'] = OPSET
    if 'pb' in described:
        described['pb']['batch'] = fixed.images['shape'][0]
        result['atc'] = atc_command(FORMATS['pb'].file, fixed.images, fixed.outputs)
    return result
