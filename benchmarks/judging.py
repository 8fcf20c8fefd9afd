"""Verification, retrieval and embedding: seconds, memory, and others beside them.

    python benchmarks/judging.py --what=pairs [--turns=3]
    python benchmarks/judging.py --what=retrieval [--turns=3]
    python benchmarks/judging.py --what=embed [--model=mobilefacenet] [--turns=3]

pairs: the whole command `trainers.evaluate --embeddings --pairs` on 6,000 pairs of random 128-d
embeddings, with pictures. retrieval: 10,000 embeddings of 512 dimensions in 1,000 classes against
themselves, a process each, with the peak of its memory: ours, ours without faiss, and the
AccuracyCalculator of pytorch-metric-learning (where it is installed). embed: images/s of
`trainers.embed` on JPEG files of 112 pixels beside the bare forward pass of the same network on
arrays, in turns in one process.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from measuring import ROOT, memory_mib, parser, run_case, write_json

PEOPLE, IMAGES = 1000, 4


def _embeddings(dim, noise, count=IMAGES):
    random = np.random.RandomState(0)
    means = np.repeat(random.randn(PEOPLE, dim), count, axis=0)
    return (means + noise * random.randn(*means.shape)).astype(np.float32)


def _pairs_file(path):
    """Ten folds of 300 genuine and 300 impostor pairs, in the format of LFW."""
    random = np.random.RandomState(1)
    with open(path, 'w') as file:
        file.write('10\t300\n')
        for fold in range(10):
            for _ in range(300):
                one, two = random.choice(IMAGES, 2, replace=False) + 1
                file.write(f'P{fold * 100 + random.randint(100)}\t{one}\t{two}\n')
            for _ in range(300):
                one, two = random.choice(100, 2, replace=False) + fold * 100
                first, second = random.randint(1, IMAGES + 1, 2)
                file.write(f'P{one}\t{first}\tP{two}\t{second}\n')


def pairs(arguments):
    """Seconds of the command."""
    names = [f'P{p}/P{p}_{i:04}' for p in range(PEOPLE) for i in range(1, IMAGES + 1)]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        embeddings, listed = (os.path.join(folder, name) for name in ('e.npz', 'pairs.txt'))
        np.savez(embeddings, names=np.array(names), embeddings=_embeddings(128, 1.3))
        _pairs_file(listed)
        command = [sys.executable, '-m', 'trainers.evaluate', f'--embeddings={embeddings}']
        command += [f'--pairs={listed}', f'--report_path={folder}/report']
        for _ in range(arguments.turns):
            start = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    return {'pairs_seconds': statistics.median(seconds), 'all': seconds}


def _retrieval_case(who):
    """{'seconds', 'mib', 'figures'} of one contestant in this process."""
    rows, labels = _embeddings(512, 3.0, 10), np.repeat(np.arange(PEOPLE), 10)
    if who == 'pytorch_metric_learning':
        import torch
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        calculator = AccuracyCalculator(
            include=('precision_at_1', 'r_precision', 'mean_average_precision_at_r'),
            k='max_bin_count',
        )
        rows, labels = torch.from_numpy(rows), torch.from_numpy(labels)
        rows = torch.nn.functional.normalize(rows)
        start = time.perf_counter()
        found = calculator.get_accuracy(rows, labels)
        names = ('precision_at_1', 'r_precision', 'mean_average_precision_at_r')
        figures = [float(found[name]) for name in names]
    else:
        from gitloss.metrics.retrieval import retrieval

        start = time.perf_counter()
        found = retrieval(rows, labels, use_faiss=None if who == 'ours' else False)
        figures = list(found[2:])
    seconds = time.perf_counter() - start
    return {'seconds': seconds, 'mib': memory_mib()[0], 'figures': figures}


def retrieval_table(arguments):
    """{contestant: [one result for each turn]}."""
    names = ('ours', 'ours_without_faiss', 'pytorch_metric_learning')
    table = {name: [] for name in names}
    for _ in range(arguments.turns):
        for name in names:
            found, problem = run_case(__file__, f'--case={name}')
            table[name].append(found or problem)
    return table


def embed(arguments):
    """Images per second of both, in turns."""
    import input as inputs

    from gitloss import data
    from gitloss.backend import tf
    from trainers import devices
    from trainers.engine.embedding import of_session
    from trainers.engine.inference import Inference
    from trainers.options import Options

    settings = Options(model=arguments.model, embedding_dim=128, device='cpu')
    spec = data.DataSpec('faces', (112, 112, 3), 100, data.CENTERED)
    rates = {'bare': [], 'embed': []}
    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default():
        count = 1600
        inputs.write_folder(folder, inputs.images_of(count, 112, count))
        source = data.IMAGES['folder'].open(folder, (112, 112, 3))
        net = Inference(settings, spec, 64)
        with tf.Session(config=devices.choose(settings).config) as session:
            session.run(tf.global_variables_initializer())
            network = of_session(net, session, 64)
            fixed = source.images(np.arange(64))
            for turn in range(arguments.turns + 1):
                start = time.perf_counter()
                for _ in range(count // 64):
                    network.values(['embeddings'], fixed)
                middle = time.perf_counter()
                for _ in network.sweep(source):
                    pass
                if turn:  # the first one warms up
                    rates['bare'].append(count / (middle - start))
                    rates['embed'].append(count / (time.perf_counter() - middle))
    ratios = [one / other for one, other in zip(rates['embed'], rates['bare'])]
    return dict(rates, ratio=statistics.median(ratios), ratios=ratios)


def main():
    flags = parser(__doc__)
    flags.add_argument('--what', choices=('pairs', 'retrieval', 'embed'))
    flags.add_argument('--case')
    flags.add_argument('--model', default='mobilefacenet')
    flags.add_argument('--turns', type=int, default=3)
    flags.add_argument('--json')
    arguments = flags.parse_args()
    if arguments.case:
        print(json.dumps(_retrieval_case(arguments.case)))
        return
    work = {'pairs': pairs, 'retrieval': retrieval_table, 'embed': embed}[arguments.what]
    result = work(arguments)
    write_json(arguments.json, result)
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
