"""What the experiment of faces.py judges networks by, and its tables."""

import os
import statistics

import measuring  # noqa: F401 (makes gitloss importable)
import numpy as np

from gitloss.data.embedding_files import read_npz
from gitloss.metrics.retrieval import retrieval
from gitloss.metrics.statistics import paired
from gitloss.metrics.verification import Roc, fold_accuracy, pair_scores

FOLDS, EACH = 10, 350
FIGURES = (
    'accuracy FF',
    'accuracy FP',
    'EER FF',
    'EER FP',
    'TAR@FAR=1e-2 FF',
    'TAR@FAR=1e-2 FP',
    'rank-1',
    'MAP@R',
)


def _sampled(random, pairs, count):
    pairs = list(pairs)
    return [pairs[i] for i in random.permutation(len(pairs))[:count]]


def pairs_of(kinds, owners, number, second_kind):
    """(first, second, genuine, folds) of frontal images with frontal or profile ones, as in CFP:
    people are dealt to ten folds, in each up to 350 genuine and as many impostor pairs.
    """
    random, rows = np.random.RandomState(number), []
    people = random.permutation(np.unique(owners))
    for fold in range(FOLDS):
        mine = np.isin(owners, people[fold::FOLDS])
        first = np.flatnonzero(mine & (kinds == 'frontal'))
        second = np.flatnonzero(mine & (kinds == second_kind))
        both = [(a, b) for a in first for b in second if a < b or second_kind != 'frontal']
        same = _sampled(random, [p for p in both if owners[p[0]] == owners[p[1]]], EACH)
        other = _sampled(random, [p for p in both if owners[p[0]] != owners[p[1]]], len(same))
        rows += [(*pair, True, fold) for pair in same] + [(*pair, False, fold) for pair in other]
    one, two, genuine, folds = np.array(rows).T
    return one, two, genuine.astype(bool), folds


def judged(path):
    """{figure: value} of the embeddings in a file."""
    names, rows = read_npz(path)
    owners = np.array([os.path.basename(os.path.dirname(name)) for name in names])
    kinds = np.array([os.path.basename(name).partition('_')[0] for name in names])
    found = {}
    for number, (short, kind) in enumerate((('FF', 'frontal'), ('FP', 'profile'))):
        one, two, genuine, folds = pairs_of(kinds, owners, number, kind)
        scores = pair_scores(rows[one], rows[two])
        roc = Roc(scores, genuine)
        found[f'accuracy {short}'] = fold_accuracy(scores, genuine, folds).mean
        found[f'EER {short}'] = roc.eer()
        found[f'TAR@FAR=1e-2 {short}'] = roc.at_far(0.01).tar
    among = retrieval(rows, np.unique(owners, return_inverse=True)[1])
    return dict(found, **{'rank-1': among.precision_at_1, 'MAP@R': among.map_at_r})


def table(results, bases):
    """Prints means and standard deviations over the seeds; then the differences of each loss to the
    one that it extends, `bases[loss]`, with p of a paired test over the seeds.
    """
    heads = '| loss | ' + ' | '.join(FIGURES) + ' |\n|' + '---|' * (len(FIGURES) + 1)
    print(heads)
    for loss, seeds in results.items():
        cells = []
        for figure in FIGURES:
            values = [found[figure] for found in seeds.values()]
            std = statistics.stdev(values) if len(values) > 1 else float('nan')
            cells.append(f'{statistics.mean(values):.4f} +- {std:.4f}')
        print(f'| {loss}, {len(seeds)} seeds | ' + ' | '.join(cells) + ' |')
    print(heads)
    for loss, seeds in results.items():
        base = bases[loss]
        common = sorted(set(seeds) & set(results.get(base, {})))
        if len(common) > 1:
            cells = []
            for figure in FIGURES:
                pair = [[results[which][seed][figure] for seed in common] for which in (loss, base)]
                difference = paired(*pair)
                cells.append(f'{difference.mean:+.4f} (p = {difference.p:.3f})')
            print(f'| {loss} - {base} | ' + ' | '.join(cells) + ' |')
