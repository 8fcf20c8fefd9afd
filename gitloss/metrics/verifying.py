"""All figures of a verification in one dictionary of plain JSON values, and as a table."""

from __future__ import annotations

import functools
from typing import Any, Sequence

import numpy as np

from gitloss.errors import check
from gitloss.metrics import bootstrap
from gitloss.metrics.verification import Point, Roc, fold_accuracy

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def _tar_at(target: float, curve: Roc) -> float | None:
    point = curve.at_far(target)
    return point and point.tar


def _threshold_at(target: float, curve: Roc) -> float | None:
    point = curve.at_far(target)
    return point and point.threshold


def _shown_far(target: float) -> str:
    return f'{target:g}'


def _point(point: Point | None) -> dict[str, float] | None:
    return point and dict(point._asdict())


def verify(
    scores: np.ndarray,
    genuine: np.ndarray,
    folds: np.ndarray | None = None,
    identities: np.ndarray | None = None,
    far: float = 1e-3,
    fars: Sequence[float] = FARS,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of scored pairs, plain JSON values. What is not defined is None.

    Args:
      scores, genuine: float [n], the higher the more alike, and bool [n].
      folds: integers [n]; None: no accuracy.
      identities: [n, 2], the two people of each pair; None: no intervals.
      far, fars: at which the threshold for use is calibrated, on all pairs; of `tar_at_far`.
      samples, seed: of the bootstrap over identities.

    Raises:
      ValueError: the arrays do not fit, a score is not finite, or there is only one fold.
    """
    for target in (far, *fars):
        check(0 < target <= 1, 'far', 'more than 0, at most 1', target)
    roc, between = Roc(scores, genuine), None
    accuracy: Any = (None,) * 4 if folds is None else fold_accuracy(scores, genuine, folds)
    if identities is not None:
        between = _intervals(roc, identities, far, fars, samples, seed)
    calibrated = _point(roc.at_far(far))
    return {
        'pairs': len(scores),
        'genuine': int(roc.genuines),
        'impostor': int(roc.impostors),
        **dict(zip(('accuracy', 'std', 'standard_error', 'folds'), accuracy)),
        'auc': roc.auc(),
        'eer': roc.eer(),
        'tar_at_far': {_shown_far(target): _point(roc.at_far(target)) for target in fars},
        'calibration': calibrated and dict(calibrated, target_far=far),
        'intervals': between,
    }


def _intervals(
    roc: Roc, identities: np.ndarray, far: float, fars: Sequence[float], samples: int, seed: int
) -> dict[str, Any]:
    tars: dict[str, Any] = {
        _shown_far(target): functools.partial(_tar_at, target) for target in fars
    }
    threshold = functools.partial(_threshold_at, far)
    statistics: dict[str, Any] = {'auc': Roc.auc, 'eer': Roc.eer, 'threshold': threshold, **tars}
    found = bootstrap.intervals(roc, identities, statistics, samples, seed)
    return {
        **{name: found[name] for name in ('auc', 'eer', 'threshold')},
        'tar_at_far': {name: found[name] for name in tars},
    }


def _row(name: str, value: float | None, interval: Sequence[float] | None, note: str = '') -> str:
    shown = 'undefined' if value is None else f'{value:.4f}'
    between = f'{interval[0]:.4f} to {interval[1]:.4f}' if interval else ''
    return f'| {name} | {shown} | {between} | {note} |'


def markdown(result: dict[str, Any]) -> str:
    """The table of a result of `verify`, in Markdown."""
    between = result['intervals'] or {'auc': None, 'eer': None, 'threshold': None, 'tar_at_far': {}}
    rows = ['| figure | value | 95 % over identities | |', '|---|---|---|---|']
    counts = f'{result["genuine"]} genuine and {result["impostor"]} impostor pairs'
    accuracy, error = result['accuracy'], result['standard_error']
    folds = result['folds'] and f'{len(result["folds"])} folds, ' + (
        f'standard deviation {result["std"]:.4f}, standard error {error:.4f}'
    )
    rows.append(_row('accuracy', accuracy, None, folds or counts))
    rows.append(_row('AUC', result['auc'], between['auc'], counts))
    rows.append(_row('EER', result['eer'], between['eer']))
    for name, point in result['tar_at_far'].items():
        note = f'FAR {point["far"]:.3g}' if point else f'needs {1 / float(name):.0f} impostor pairs'
        tar = point and point['tar']
        rows.append(_row(f'TAR@FAR={name}', tar, between['tar_at_far'].get(name), note))
    calibrated = result['calibration']
    if calibrated:
        note = f'FAR {calibrated["far"]:.3g}, TAR {calibrated["tar"]:.4f}'
        name = f'threshold at FAR={calibrated["target_far"]:g}'
        rows.append(_row(name, calibrated['threshold'], between['threshold'], note))
    return '\n'.join(rows)
