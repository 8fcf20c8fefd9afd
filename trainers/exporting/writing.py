"""From a checkpoint to a folder with an export: all of it, or nothing."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

import numpy as np

from gitloss import files
from gitloss.data import LABELS
from gitloss.errors import check
from trainers import checkpoints, loading
from trainers.exporting import card, description, graph, parity, placing
from trainers.exporting.content import Content
from trainers.exporting.formats import FORMATS, Format, chosen
from trainers.exporting.samples import RunImages
from trainers.options import Options

GRAPH_BYTES = 1 << 31  # of a GraphDef, at most


def _check_size(checkpoint: checkpoints.Checkpoint) -> None:
    """ValueError if no GraphDef can have the class weights."""
    shapes = checkpoints.variables(checkpoint)
    names = ('logits/kernel', 'logits/class_weights')
    size = sum(4 * int(np.prod(shapes[name])) for name in names if name in shapes)
    expected = 'class weights below the 2 GiB of a graph; --noclassifier exports embeddings alone'
    check(size < GRAPH_BYTES, '--classifier', expected, f'{size} bytes')


def _files(content: Content, formats: Mapping[str, Format], folder: str) -> list[str]:
    """Writes the files of the formats. Returns their paths."""
    paths = [os.path.join(folder, each.file) for each in formats.values()]
    for each, path in zip(formats.values(), paths):
        each.write(content, path)
    return paths


def _figures(
    options: Options,
    paths: list[str],
    formats: Mapping[str, Format],
    samples: Any,
    expected: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """{format: how its file compares with the checkpoint}."""
    outputs = parity.outputs_of(paths, samples.images, os.path.dirname(paths[0]))
    figures = {}
    for (name, each), found in zip(formats.items(), outputs):
        figures[name] = parity.compared(found, expected, samples)
        parity.check_bounds(name, each, figures[name], options.parity_tolerance)
    return figures


def _describe(
    checkpoint: checkpoints.Checkpoint,
    content: Content,
    folder: str,
    figures: Mapping[str, Mapping[str, Any]],
) -> None:
    """Writes labels.txt, gitloss.json and MODEL.md beside the files of the formats."""
    names = loading.classes_of(checkpoint)
    is_labelled = names and len(content.graph.outputs) > 1  # the embeddings and more
    labels = LABELS if is_labelled else None
    described = description.manifest(checkpoint, content, folder, figures, labels)
    texts = {
        description.FILE: json.dumps(described, indent=1) + '\n',
        card.FILE: card.text(described, checkpoint.manifest['dataset'], names),
    }
    if labels:
        texts[labels] = ''.join(f'{name}\n' for name in names)
    for name, text in texts.items():
        path = os.path.join(folder, name)
        files.write_atomically(path, text.encode('utf-8', 'surrogateescape'))


def write(options: Options, checkpoint: checkpoints.Checkpoint, folder: str) -> list[str]:
    """Writes an export into a folder. Returns the lines to print.

    Raises:
      ValueError: an unknown format, a missing package, data of --data_path that are refused, or
        too many classes.
      ExportError: a file differs from the checkpoint by more than it may.
      OSError: a file cannot be written.
    """
    formats = chosen(options.format, options.input_dtype)
    if options.classifier:
        _check_size(checkpoint)
    images = RunImages(options, checkpoint)
    samples = images.compared()
    opened = graph.network_of(checkpoint, options.classifier)
    with opened as network, placing.inside(folder) as temporary:
        definition = network.definition(options.input_dtype)
        content = Content(
            graph.of_batch(definition, None),
            graph.of_batch(definition, options.export_batch),
            images.calibrating,
        )
        paths = _files(content, formats, temporary)
        figures = _figures(options, paths, formats, samples, network(samples.images))
        _describe(checkpoint, content, temporary, figures)
        placing.move(temporary, folder)
    return _lines(folder, formats, figures, content)


def _lines(
    folder: str, formats: Mapping[str, Format], figures: Mapping[str, Any], content: Content
) -> list[str]:
    lines = [
        parity.line(os.path.join(folder, each.file), figures[name])
        for name, each in formats.items()
    ]
    if 'pb' in formats:
        path = os.path.join(folder, FORMATS['pb'].file)
        lines.append(description.atc_command(path, content.fixed.images, content.fixed.outputs))
    return lines
