"""Rank-1 identification with a run on faces: which training image is nearest to each test image?

python benchmarks/identification.py output/faces [--data_path=DIR]

The gallery is the training images of the run, the probes are its test images. A probe is right if
its nearest gallery image, by Euclidean distance and by cosine, is of the same person. Prints one
JSON object.
"""

import json

import measuring
import numpy as np

from gitloss.data import Source
from trainers import checkpoints, devices, loading
from trainers.engine import runtime
from trainers.options import Options


def embedded(handle, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """(embeddings float64 [n, dim], labels int32 [n]) of a split."""
    swept = handle.sweep(source, with_predictions=False)
    points, labels = map(np.concatenate, zip(*[(batch[0], batch[2]) for batch in swept]))
    return points.astype(np.float64), labels


def rank_1(probes: np.ndarray, labels: np.ndarray, gallery: np.ndarray, names: np.ndarray) -> float:
    """The fraction of the probes [n, dim] whose nearest row of the gallery [k, dim] has their
    label.
    """
    squares = np.sum(gallery**2, axis=1)[None, :] - 2.0 * probes.dot(gallery.T)
    return float(np.mean(names[squares.argmin(axis=1)] == labels))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument('run', help='folder of a run, or a checkpoint')
    parser.add_argument('--data_path', default='', help='the data, if they have moved')
    arguments = parser.parse_args()
    checkpoint = checkpoints.find(arguments.run, 'run')
    settings = Options.restored(checkpoints.options_of(checkpoint).as_dict(), device='cpu')
    if arguments.data_path:
        settings = Options.restored(settings.as_dict(), data_path=arguments.data_path)
    dataset = loading.dataset_to_measure(settings, checkpoint)
    dataset.require('train', 'test')
    with runtime.evaluation(checkpoint, settings, devices.choose(settings)) as handle:
        gallery, names = embedded(handle, dataset.train)
        probes, labels = embedded(handle, dataset.test)
    result = {
        'people': len(np.unique(names)),
        'gallery': len(gallery),
        'probes': len(probes),
        'rank_1_euclidean': rank_1(probes, labels, gallery, names),
        'rank_1_cosine': rank_1(unit(probes), labels, unit(gallery), names),
        'step': checkpoint.step,
    }
    print(json.dumps(result))


if __name__ == '__main__':
    main()
