"""Exported files compared with the network of their checkpoint, on the same images.

Each file is loaded by its own runtime, in a process that has never seen the checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Mapping

import numpy as np

from gitloss.errors import ExportError, one_line
from trainers.exporting.formats import Format
from trainers.exporting.samples import Samples
from trainers.options import ROOT


def outputs_of(paths: list[str], images: np.ndarray, folder: str) -> list[dict[str, np.ndarray]]:
    """The outputs of exported models, and the name of each `runtime`, from another process.

    Args:
      folder: where the images and the outputs may lie meanwhile.

    Raises:
      ExportError: a model cannot be loaded or run.
    """
    given, out = (os.path.join(folder, name) for name in ('images.npy', 'outputs.npz'))
    np.save(given, images)
    ended = subprocess.run(
        [sys.executable, '-m', 'trainers.exporting.running', given, out, *paths],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if ended.returncode:
        lines = ended.stderr.decode('utf-8', 'replace').strip().splitlines() or ['nothing']
        raise ExportError(
            f'parity: expected files that their runtimes run. Received: {one_line(lines[-1])} '
            f'(status {ended.returncode})'
        )
    outputs: list[dict[str, np.ndarray]] = [{} for _ in paths]
    with np.load(out) as found:
        for key in found.files:
            number, _, name = key.partition('/')
            outputs[int(number)][name] = found[key]
    os.remove(given)
    os.remove(out)
    return outputs


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance of the two embeddings of an image, relative to the length of the
    expected one, or to the median length if that is larger: an embedding near 0 is the difference
    of large numbers, and has their rounding error.

    Args:
      found, expected: float [n, dim].
    """
    expected = np.asarray(expected, np.float64)
    lengths = np.linalg.norm(expected, axis=1)
    lengths = np.maximum(lengths, max(float(np.median(lengths)), 1e-30))
    return float((np.linalg.norm(found - expected, axis=1) / lengths).max())


def cosine(found: np.ndarray, expected: np.ndarray) -> float:
    """The mean cosine of the two embeddings of an image."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / np.maximum(lengths, 1e-30)).mean())


def compared(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], samples: Samples
) -> dict[str, Any]:
    """The figures of one file.

    Args:
      found: its outputs.
      expected: embeddings and, with the classifier, logits of the checkpoint.
    """
    figures: dict[str, Any] = {
        'runtime': str(found['runtime']),
        'images': len(samples.images),
        'of': samples.text,
        'difference': difference(found['embeddings'], expected['embeddings']),
        'cosine': cosine(found['embeddings'], expected['embeddings']),
        **dict.fromkeys(('equal_predictions', 'accuracy', 'checkpoint_accuracy')),
    }
    if 'logits' in expected:
        predicted, labels = expected['logits'].argmax(axis=1), samples.labels
        figures['equal_predictions'] = float(np.mean(found['predictions'] == predicted))
        if labels is not None:
            figures['accuracy'] = float(np.mean(found['predictions'] == labels))
            figures['checkpoint_accuracy'] = float(np.mean(predicted == labels))
    return figures


def check_bounds(name: str, chosen: Format, figures: Mapping[str, Any], tolerance: float) -> None:
    """ExportError if the embeddings of a file differ too much."""
    bound = tolerance if chosen.bound is None else chosen.bound
    holds = figures['difference'] <= bound  # NaN is not
    expected = f'within {bound:g} of those of the checkpoint, relative to their length'
    if chosen.cosine is not None:
        holds = figures['cosine'] >= chosen.cosine
        expected = f'whose cosine with those of the checkpoint is {chosen.cosine:g} or more'
    if not holds:
        raise ExportError(
            f'--format={name}: expected embeddings {expected}. Received: a difference of '
            f'{figures["difference"]:.3g} and a mean cosine of {figures["cosine"]:.4f} on '
            f'{figures["images"]} {figures["of"]}'
        )


def line(file: str, figures: Mapping[str, Any]) -> str:
    """The figures of one file, for people."""
    text = f'{file}: embeddings within {figures["difference"]:.2g}'
    if figures['equal_predictions'] is not None:
        text += f', {figures["equal_predictions"]:.2%} of the predictions equal'
    if figures['accuracy'] is not None:
        text += f', accuracy {figures["accuracy"]:.4f} ({figures["checkpoint_accuracy"]:.4f})'
    return f'{text}, on {figures["images"]} {figures["of"]}, by {figures["runtime"]}'
