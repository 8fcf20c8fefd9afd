"""Verification of pairs of images: from a checkpoint, or from embeddings in a file.

The second needs no TensorFlow, and does not import it.
"""

from __future__ import annotations

import json
import os
from typing import Any, Sequence

import numpy as np

from gitloss import files
from gitloss.data.embedding_files import read_npz, rows_of
from gitloss.data.pairs import Pairs, read_pairs
from gitloss.errors import log
from gitloss.metrics.verification import Roc, pair_scores
from gitloss.metrics.verifying import markdown, verify
from trainers.options import Options, absolute

_NAMED = 20  # people in a report who are in the training set, too


def figures(options: Options, pairs: Pairs, embeddings: np.ndarray) -> tuple[dict[str, Any], Any]:
    """(the figures of the pairs, see `verify`; their scores).

    Args:
      embeddings: float [k, dim] of the images of the pairs.
    """
    scores = pair_scores(embeddings[pairs.first], embeddings[pairs.second], options.similarity)
    result = verify(scores, pairs.genuine, pairs.split(), pairs.identities(), options.far)
    return result, scores


def overlap(pairs: Pairs, classes: Sequence[str]) -> dict[str, Any] | None:
    """People of the pairs who are among the training identities, by the last part of their names:
    {'people': number, 'names': some of them}; None if one of both is not known.
    """
    if pairs.people is None or not classes:
        log.warning('whether people of the pairs are in the training set is not known')
        return None
    trained = {name.rpartition('/')[2] for name in classes}
    both = sorted({name for name in pairs.people if name.rpartition('/')[2] in trained})
    if both:
        log.warning(
            '%d of the %d people of the pairs are in the training set, too: the figures are not '
            'those of unknown people',
            len(both),
            len(set(pairs.people)),
        )
    return {'people': len(both), 'names': both[:_NAMED]}


def of_embeddings(options: Options) -> dict[str, Any]:
    """The results of --embeddings and --pairs."""
    pairs = read_pairs(options.pairs)
    names, embeddings = read_npz(options.embeddings)
    rows = rows_of(names, pairs.names, options.embeddings)
    result, scores = figures(options, pairs, embeddings[rows])
    _tell(options, pairs, {'': (result, scores)})
    return {
        'pairs': options.pairs,
        'embeddings': options.embeddings,
        'similarity': options.similarity,
        'overlap': overlap(pairs, ()),
        'plain': result,
    }


def of_checkpoint(options: Options, checkpoint: Any) -> dict[str, Any]:
    """The results of --ckpt_path and --pairs, without and with flip averaging."""
    from gitloss.data.pair_images import open_images
    from trainers import checkpoints, devices, loading
    from trainers.engine.embedding import embedder

    pairs = read_pairs(options.pairs)
    settings = options.with_saved(checkpoints.options_of(checkpoint).as_dict(), 'evaluate')
    shape = checkpoints.spec_of(checkpoint).image_shape
    images = open_images(pairs, options.pairs, options.pairs_path, shape)
    device = devices.choose(settings)
    with embedder(checkpoint, device, options.batch_size) as network:
        embedded = network.embed(images, flip=True)
    both = {
        'plain': figures(options, pairs, embedded.plain),
        'flip': figures(options, pairs, embedded.combined()),
    }
    _tell(options, pairs, both)
    return {
        'pairs': options.pairs,
        'similarity': options.similarity,
        'overlap': overlap(pairs, loading.classes_of(checkpoint)),
        **{name: result for name, (result, _) in both.items()},
        'step': checkpoint.step,
        'checkpoint': checkpoint.path,
    }


def _tell(options: Options, pairs: Pairs, results: dict[str, tuple[dict[str, Any], Any]]) -> None:
    """Logs the tables; with --report_path writes them, and the pictures."""
    tables = {name: markdown(result) for name, (result, _) in results.items()}
    for name, table in tables.items():
        log.info('%s', f'{name}:\n{table}' if name else table)
    if not options.report_path:
        return
    from gitloss.figures import encoding, verification

    folder = absolute('report_path', options.report_path)
    os.makedirs(folder, exist_ok=True)
    curves = {name or 'pairs': Roc(scores, pairs.genuine) for name, (_, scores) in results.items()}
    defined = {name: curve for name, curve in curves.items() if curve.is_defined}
    pictures = {'roc.png': verification.roc(defined)} if defined else {}
    for name, (result, scores) in results.items():
        calibrated = result['calibration']
        pictures[f'scores{name and "-"}{name}.png'] = verification.scores(
            scores,
            pairs.genuine,
            calibrated and calibrated['threshold'],
            xlabel=options.similarity if options.similarity == 'cosine' else '- distance',
        )
    for name, figure in pictures.items():
        files.write_atomically(os.path.join(folder, name), encoding.png_bytes(figure))
    text = '\n\n'.join(f'## {name or "pairs"}\n\n{table}' for name, table in tables.items())
    files.write_atomically(os.path.join(folder, 'verification.md'), text + '\n')
    content = json.dumps(
        {
            'similarity': options.similarity,
            **{name or 'plain': result for name, (result, _) in results.items()},
        }
    )
    files.write_atomically(os.path.join(folder, 'verification.json'), content + '\n')
