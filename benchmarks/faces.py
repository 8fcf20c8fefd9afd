"""Does git loss help on faces of unknown people? The experiment of docs/faces.md.

    python benchmarks/faces.py --data=cfp112 --out=experiment [--part=choose|runs|table]
        [--seeds=1,2,3] [--steps=2000] [--choice_steps=1000] [--runs=softmax,git] [--jobs=2]

--data is a folder for each person, with images frontal_*.jpg and profile_*.jpg. 100 people are the
test, the other 400 the training; 60 of these are held out to choose the weights of the losses.

  choose   trains each loss with the weights of its grid on 340 people, and judges it on the 60
  runs     trains each loss with its chosen weights on the 400 people, once for each seed
  table    judges the runs on the 100 people, and prints means, deviations and paired tests

Without --part all three. Every run is a folder in --out: what is finished is not repeated, and what
was interrupted continues. Network, steps, order of the data and seeds are the same for all losses.
With --jobs so many runs go on at a time, each on its share of the cores.
"""

import collections
import concurrent.futures
import itertools
import json
import os
import queue
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from face_figures import judged, table
from measuring import ROOT, parser, write_json

TEST, CHOICE = 100, 60
DIM = 128


class Loss(NamedTuple):
    """A loss of the experiment.

    base: the loss that it extends, and to which it is compared.
    grid: {weight: values to try}. Weights that are not in it are those chosen for the base.
    scale: {weight: factor} of those of the base, where its formula is another multiple.
    """

    flags: str
    base: str = ''
    grid: dict = {}
    scale: dict = {}


LOSSES = {
    'softmax': Loss('--head=softmax --lambda_c=0 --lambda_g=0'),
    'center': Loss(
        '--head=softmax --lambda_g=0 --git_loss_form=pairwise',
        'softmax',
        {'lambda_c': (0.001, 0.01, 0.1)},
    ),
    'git_pairwise': Loss(
        '--head=softmax --git_loss_form=pairwise', 'center', {'lambda_g': (1, 10, 100)}
    ),
    # Its center term is a mean over dimensions, where the pairwise one is half of a sum.
    'git_elementwise': Loss(
        '--head=softmax --git_loss_form=elementwise',
        'center',
        {'lambda_g': (0.1, 1, 10)},
        {'lambda_c': DIM / 2},
    ),
    'arcface': Loss(
        '--head=arcface --lambda_c=0 --lambda_g=0', 'softmax', {'margin': (0.1, 0.25, 0.5)}
    ),
    'arcface_git': Loss(
        '--head=arcface --git_loss_form=pairwise',
        'arcface',
        {'lambda_c': (0.001, 0.01), 'lambda_g': (1, 100)},
    ),
    'cosface': Loss(
        '--head=cosface --lambda_c=0 --lambda_g=0', 'softmax', {'margin': (0.1, 0.2, 0.35)}
    ),
}
NETWORK = (
    f'--model=mobilefacenet --image_size=48 --embedding_dim={DIM} --embedding_norm --batch_size=32 '
    '--schedule=cosine --warmup_steps=100 --augment=flip,crop:4 --weight_decay=0.0005 '
    '--optimizer=adam --learning_rate=0.003 --noevaluate --valid_fraction=0 --test_fraction=0 '
    '--device=cpu --nocheck_images --projection=pca'
)


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


class Trial(NamedTuple):
    """One network to train, and the people on whom it is judged."""

    name: str
    loss: str
    weights: dict
    seed: int
    steps: int
    people: list
    judged: list

    def results(self, arguments):
        """{figure: value}; trains the network if that has not been done."""
        run = os.path.abspath(os.path.join(arguments.out, self.name))
        done = os.path.join(run, 'embeddings.npz')
        self._keep(run + '.json')
        if not os.path.isfile(done):
            flags = [f'--{key}={value:g}' for key, value in self.weights.items()]
            listed = write_list(run + '.list', arguments.data, self.people)
            flags += [f'--data_path={listed}', '--dataset=list', f'--exp_save_dir={run}']
            flags += [f'--steps={self.steps}', f'--update_centers={self.steps}']
            flags += [f'--seed={self.seed}', '--save_every=250']
            command('trainers.run', *NETWORK.split(), *LOSSES[self.loss].flags.split(), *flags)
            images = write_list(run + '.judged.list', arguments.data, self.judged)
            given = [f'--ckpt_path={run}', f'--data_path={images}', f'--out={done}', '--device=cpu']
            command('trainers.embed', *given, '--flip')
        return judged(done)

    def _keep(self, path):
        """Writes what is tried; a folder of another trial under this name is refused."""
        mine = {'network': NETWORK, 'loss': LOSSES[self.loss].flags, 'weights': self.weights}
        mine.update(seed=self.seed, steps=self.steps, people=self.people, judged=self.judged)
        if os.path.isfile(path):
            with open(path) as file:
                if json.load(file) != mine:
                    sys.exit(f'{path}: expected the trial of these flags. Received: another one')
        write_json(path, mine)


def in_turns(arguments, trials):
    """The results of the trials, --jobs at a time on disjoint cores."""
    cores = sorted(os.sched_getaffinity(0))
    shares = queue.Queue()
    for number in range(arguments.jobs):
        shares.put(cores[number % len(cores) :: arguments.jobs])

    def run(trial):
        share = shares.get()
        os.sched_setaffinity(0, share)  # of this thread, and so of the processes that it starts
        try:
            return trial.results(arguments)
        finally:
            shares.put(share)

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        return list(pool.map(run, trials))


def choose(arguments, losses):
    """{loss: weights} with the best mean of the two accuracies on the people held out. What a loss
    extends is chosen before it.
    """
    _, held_out, rest = people_of(arguments.data)
    chosen = {'softmax': {}}

    def best(loss):
        given = {
            weight: value * LOSSES[loss].scale.get(weight, 1)
            for weight, value in chosen[LOSSES[loss].base].items()
        }
        grid, trials = LOSSES[loss].grid, []
        for values in itertools.product(*grid.values()):
            name = '-'.join(['choose', loss, *(f'{value:g}' for value in values)])
            weights = dict(given, **dict(zip(grid, values)))
            trials.append(Trial(name, loss, weights, 1, arguments.choice_steps, rest, held_out))
        results = in_turns(arguments, trials)
        for trial, found in zip(trials, results):
            print(json.dumps({'loss': loss, **trial.weights, **found}), flush=True)
        means = [found['accuracy FF'] + found['accuracy FP'] for found in results]
        return trials[int(np.argmax(means))].weights

    def add(loss):
        if loss not in chosen:
            add(LOSSES[loss].base)
            chosen[loss] = best(loss)

    for loss in losses:
        add(loss)
    return chosen


def main():
    flags = parser(__doc__)
    flags.add_argument('--data', required=True)
    flags.add_argument('--out', required=True)
    flags.add_argument('--part', choices=('choose', 'runs', 'table', ''), default='')
    flags.add_argument('--seeds', default='1,2,3')
    flags.add_argument('--steps', type=int, default=2000)
    flags.add_argument('--choice_steps', type=int, default=1000)
    flags.add_argument('--runs', default=','.join(LOSSES))
    flags.add_argument('--jobs', type=int, default=1)
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
    trials = []
    for seed, loss in itertools.product(map(int, arguments.seeds.split(',')), losses):
        name = f'{loss}-{seed}'
        is_done = os.path.isfile(os.path.join(arguments.out, name, 'embeddings.npz'))
        if arguments.part != 'table' or is_done:
            weights, people = chosen.get(loss, {}), sum(others, [])
            trials.append(Trial(name, loss, weights, seed, arguments.steps, people, test))
    results = collections.defaultdict(dict)
    for trial, found in zip(trials, in_turns(arguments, trials)):
        results[trial.loss][trial.seed] = found
    write_json(os.path.join(arguments.out, 'results.json'), results)
    table(results, {loss: LOSSES[loss].base for loss in losses})


if __name__ == '__main__':
    main()
