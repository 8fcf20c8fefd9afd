"""From a checkpoint to a folder with an export: all of it, or nothing."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from gitloss import files
from gitloss.data import LABELS
from trainers import checkpoints, loading
from trainers.exporting import card, description, graph, parity, placing
from trainers.exporting.content import Content
from trainers.exporting.formats import FORMATS, Format, chosen
from trainers.exporting.samples import RunImages
from trainers.options import Options


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
    labels = LABELS if names else None
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
      ValueError: an unknown format, a missing package, or data of --data_path that are refused.
      ExportError: a file differs from the checkpoint by more than it may.
      OSError: a file cannot be written.
    """
    formats = chosen(options.format, options.input_dtype)
    images = RunImages(options, checkpoint)
    samples = images.compared()
    with graph.network_of(checkpoint) as network, placing.inside(folder) as temporary:
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
