"""Does git loss help on faces of unknown people? The experiment of docs/faces.md.

    python benchmarks/faces.py --data=cfp112 --out=experiment [--part=choose|runs|table]
        [--seeds=1,2,3] [--steps=2000] [--runs=softmax,git]

--data is a folder for each person, with images frontal_*.jpg and profile_*.jpg. 100 people are the
test, the other 400 the training; 60 of these are held out to choose the weights of the losses.

  choose   trains each loss with each weight of its grid on 340 people, and judges it on the 60
  runs     trains each loss with its chosen weights on the 400 people, once for each seed
  table    judges the runs on the 100 people, and prints means, deviations and paired tests

Without --part all three. Every run is a folder in --out: what is finished is not repeated, and what
was interrupted continues. Network, steps, order of the data and seeds are the same for all losses.
"""

import collections
import itertools
import json
import os
import statistics
import subprocess
import sys

import numpy as np
from measuring import ROOT, parser, write_json

from gitloss.data.embedding_files import read_npz
from gitloss.metrics.retrieval import retrieval
from gitloss.metrics.verification import Roc, fold_accuracy, pair_scores

TEST, CHOICE, FOLDS, EACH = 100, 60, 10, 350
# {loss: (flags, {weight: its grid})}
LOSSES = {
    'softmax': ('--head=softmax --lambda_c=0 --lambda_g=0', {}),
    'center': ('--head=softmax --lambda_g=0', {'lambda_c': (0.001, 0.01, 0.1)}),
    'git': (
        '--head=softmax --git_loss_form=elementwise',
        {'lambda_c': (0.001, 0.01, 0.1), 'lambda_g': (0.01, 0.1, 1.0)},
    ),
    'git_pairwise': (
        '--head=softmax --git_loss_form=pairwise',
        {'lambda_c': (0.001, 0.01, 0.1), 'lambda_g': (0.01, 0.1, 1.0)},
    ),
    'arcface': ('--head=arcface --lambda_c=0 --lambda_g=0', {'margin': (0.2, 0.35, 0.5)}),
    'arcface_git': (
        '--head=arcface --git_loss_form=pairwise',
        {'lambda_c': (0.01, 0.1), 'lambda_g': (0.1, 1.0)},
    ),
    'cosface': ('--head=cosface --lambda_c=0 --lambda_g=0', {'margin': (0.15, 0.25, 0.35)}),
}
NETWORK = (
    '--model=mobilefacenet --image_size=64 --embedding_dim=128 --embedding_norm --batch_size=32 '
    '--schedule=cosine --warmup_steps=100 --augment=flip,crop:4 --weight_decay=0.0005 '
    '--optimizer=adam --learning_rate=0.001 --noevaluate --valid_fraction=0 --test_fraction=0 '
    '--device=cpu --nocheck_images --projection=pca'
)
FIGURES = {  # {name: whether more is better}
    'accuracy FF': True,
    'accuracy FP': True,
    'EER FF': False,
    'EER FP': False,
    'TAR@FAR=1e-2 FF': True,
    'TAR@FAR=1e-2 FP': True,
    'rank-1': True,
    'MAP@R': True,
}


def people_of(folder):
    """(test, choice, rest): names of people, drawn by a fixed seed."""
    names = sorted(n for n in os.listdir(folder) if os.path.isdir(os.path.join(folder, n)))
    names = [names[i] for i in np.random.RandomState(1807).permutation(len(names))]
    return names[:TEST], names[TEST : TEST + CHOICE], names[TEST + CHOICE :]


def write_list(path, folder, people):
    """A list of their images, for --dataset=list."""
    with open(path, 'w') as file:
        for who in sorted(people):
            for name in sorted(os.listdir(os.path.join(folder, who))):
                file.write(f'{os.path.abspath(os.path.join(folder, who, name))}\t{who}\n')
    return path


def command(module, *flags):
    subprocess.run([sys.executable, '-m', module, *flags], cwd=ROOT, check=True)


def train(arguments, name, loss, weights, seed, people, judged):
    """Trains one network and embeds the people on whom it is judged. Returns the file."""
    run = os.path.abspath(os.path.join(arguments.out, name))
    done = os.path.join(run, 'embeddings.npz')
    if not os.path.isfile(done):
        flags = [f'--{key}={value:g}' for key, value in weights.items()]
        listed = write_list(run + '.list', arguments.data, people)
        paths = [f'--data_path={listed}', '--dataset=list', f'--exp_save_dir={run}']
        numbers = [f'--steps={arguments.steps}', f'--update_centers={arguments.steps}']
        numbers += [f'--seed={seed}', '--save_every=250']
        every = [*NETWORK.split(), *LOSSES[loss][0].split(), *flags, *paths, *numbers]
        command('trainers.run', *every)
        images = write_list(run + '.judged.list', arguments.data, judged)
        given = [f'--ckpt_path={run}', f'--data_path={images}', f'--out={done}', '--device=cpu']
        command('trainers.embed', *given, '--flip')
    return done


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


def choose(arguments, losses):
    """{loss: weights} with the best mean of the two accuracies on the people held out."""
    _, held_out, rest = people_of(arguments.data)
    chosen = {}
    for loss in losses:
        grid, results = LOSSES[loss][1], []
        for values in itertools.product(*grid.values()):
            weights = dict(zip(grid, values))
            name = '-'.join(['choose', loss, *(f'{v:g}' for v in values)])
            path = train(arguments, name, loss, weights, 1, rest, held_out)
            figures = judged(path)
            results.append((figures['accuracy FF'] + figures['accuracy FP'], weights))
            print(json.dumps({'loss': loss, **weights, **figures}), flush=True)
        chosen[loss] = max(results, key=lambda result: result[0])[1]
    return chosen


def table(results):
    """Prints means, standard deviations, and paired differences to softmax over the seeds."""
    print('| loss | ' + ' | '.join(FIGURES) + ' |\n|' + '---|' * (len(FIGURES) + 1))
    for loss, seeds in results.items():
        cells = []
        for figure in FIGURES:
            values = [seeds[seed][figure] for seed in sorted(seeds)]
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            cell = f'{statistics.mean(values):.4f} +- {std:.4f}'
            common = sorted(set(seeds) & set(results.get('softmax', {})))
            if loss != 'softmax' and len(common) > 1:
                from scipy import stats

                theirs = [results['softmax'][seed][figure] for seed in common]
                test = stats.ttest_rel([seeds[seed][figure] for seed in common], theirs)
                cell += f' (p = {test.pvalue:.3f})'
            cells.append(cell)
        print(f'| {loss} | ' + ' | '.join(cells) + ' |')


def main():
    flags = parser(__doc__)
    flags.add_argument('--data', required=True)
    flags.add_argument('--out', required=True)
    flags.add_argument('--part', choices=('choose', 'runs', 'table', ''), default='')
    flags.add_argument('--seeds', default='1,2,3')
    flags.add_argument('--steps', type=int, default=2000)
    flags.add_argument('--runs', default=','.join(LOSSES))
    arguments = flags.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    losses, kept = arguments.runs.split(','), os.path.join(arguments.out, 'chosen.json')
    chosen = {}
    if os.path.isfile(kept):
        with open(kept) as file:
            chosen = json.load(file)
    if arguments.part in ('choose', ''):
        chosen.update(choose(arguments, losses))
        write_json(kept, chosen)
    if arguments.part == 'choose':
        return
    test, *others = people_of(arguments.data)
    results = collections.defaultdict(dict)
    for seed in map(int, arguments.seeds.split(',')):
        for loss in losses:
            name = f'{loss}-{seed}'
            is_done = os.path.isfile(os.path.join(arguments.out, name, 'embeddings.npz'))
            if arguments.part != 'table' or is_done:
                weights = chosen.get(loss, {})
                path = train(arguments, name, loss, weights, seed, sum(others, []), test)
                results[loss][seed] = judged(path)
    write_json(os.path.join(arguments.out, 'results.json'), results)
    table(results)


if __name__ == '__main__':
    main()
