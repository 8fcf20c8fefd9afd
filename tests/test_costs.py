"""benchmarks/costs.py: the model's numbers by hand, and beside the graph of one worker."""

import os
import sys

import numpy as np
import pytest

from gitloss.backbones import BACKBONES, Backbone
from gitloss.backend import tf
from gitloss.sharding import ClassRanges
from gitloss.sharding.sampling import drawn, sampled_columns
from helpers import graph_session
from trainers.options import ROOT

sys.path.append(os.path.join(ROOT, 'benchmarks'))
import costs  # noqa: E402
import many_classes  # noqa: E402

BATCH, DIM, CLASSES = 24, 16, 90
# Of the network: 8 filters of 3 x 3 with bias; 6 x 6 x 8 features to 16 dimensions with bias.
SHARED = 9 * 8 + 8 + 288 * 16 + 16


@pytest.fixture(scope='module', autouse=True)
def _network():
    BACKBONES['made_up'] = Backbone(many_classes.features, smallest=many_classes.SIZE)
    yield
    del BACKBONES['made_up']


@pytest.mark.parametrize('workers', [2, 4])
@pytest.mark.parametrize('sample', [None, 1.0, 0.1], ids=['whole', 'sharded', 'sampled'])
def test_the_model_has_the_messages_and_products_of_the_graph(tmp_path, workers, sample):
    """Margin heads have no bias. 90 classes are not a multiple of four: worker 0 has 22 of the
    model's 22.5. The columns of a sample are those of the model. Its network: the dense layer,
    forward and two gradients.
    """
    flags = [
        '--model=made_up',
        '--head=arcface',
        '--git_loss_form=pairwise',
        '--device=cpu',
        f'--embedding_dim={DIM}',
        f'--batch_size={BATCH}',
        f'--exp_save_dir={tmp_path}',
    ]
    case = costs.Case(workers, BATCH // workers, DIM, CLASSES, SHARED)
    if sample:
        flags += ['--shard_classes', f'--sample_classes={sample}']
        case = case._replace(is_sharded=True, sample=sample)
    found = costs.counted(flags, many_classes.dataset_of(CLASSES), workers, case.columns)
    gathered, reduced = costs.messages(case)
    assert sorted(found['gathered']) == sorted(gathered)
    assert sorted(found['reduced']) == sorted(reduced)
    products = costs.flops(case)
    assert found['flops'].pop('network') == 6.0 * BATCH / workers * 288 * DIM
    if sample == 1.0 and workers == 4:
        products['classes'] *= 22 / 22.5
    assert found['flops'] == pytest.approx(products, rel=1e-12)


def test_columns_of_a_sample():
    """Their mean over 400 batches, each with 24 labels of 90 classes, of which 9 are drawn: 9 + 81
    (1 - (89 / 90)^24) = 28.05 in all. The number of classes in a batch deviates by less than 2.
    """
    counts, random = [], np.random.RandomState(0)
    ranges = ClassRanges(CLASSES, 2, rate=0.1)
    with graph_session() as session:
        labels, step = tf.placeholder(tf.int32, [BATCH]), tf.placeholder(tf.int64, [])
        sample = drawn(ranges, 1, step)
        sizes = [tf.size(sampled_columns(labels, part, *sample).rows) for part in ranges.whole()]
        for number in range(400):
            feed = {labels: random.randint(0, CLASSES, BATCH), step: number}
            counts.append(session.run(sizes, feed))
    case = costs.Case(2, BATCH // 2, DIM, CLASSES, SHARED, is_sharded=True, sample=0.1)
    assert 2 * case.columns == pytest.approx(9 + 81 * (1 - (89 / 90) ** 24))
    assert np.sum(counts, axis=1).mean() == pytest.approx(2 * case.columns, abs=4 * 2 / 20)


def test_bytes_sent():
    """Two workers with 3 of 6 images in 2 dimensions. A ring sends half of what is gathered and all
    that is reduced, and each worker's two requests. Whole, 5 classes: gathered 6 + 12 + 4, reduced
    7 + 10 + 4 + 9. Sharded: gathered 6 + 12 + 12 + 60 + 4, reduced 12 + 12 + 7 + 3 + 9.
    """
    whole = costs.Case(2, 3, 2, 5, 7)
    assert costs.sent(whole) == 4 * (22 / 2 + 30)
    assert costs.sent(whole._replace(is_sharded=True)) == 4 * (94 / 2 + 43)
    assert costs.sent(costs.Case(1, 6, 2, 5, 7)) == 0


def test_seconds():
    """Two workers: a round for each of 3 gathers, 2 for the reduction; 164 bytes at 164 / s."""
    assert costs.seconds(costs.Case(2, 3, 2, 5, 7), 164.0) == pytest.approx(1 + 5 * costs.LATENCY)


def test_memory():
    """Of 1000 classes each of 4 workers has 250, with Adam in 4 x 8 numbers and a count. A step of
    16 samples has the gradient, four times [16, 8] and the statistics 5 x 16 x 4. A sample of a
    tenth has 25 classes and 225 / 1000 of the 1000 (1 - 0.999^16) in a batch, nearly 225 x 16 /
    1000, and their gradient and their rows.
    """
    case = costs.Case(4, 4, 8, 1000, 0, is_sharded=True)
    assert costs.memory(case, 2) == {
        'held': 4 * 250 * 33,
        'step': 4 * (250 * 8 + 4 * 16 * 8 + 320),
        'logits': 4 * 16 * 250,
        'labels': 5 * 16 * 16,
    }
    sampled = costs.memory(case._replace(sample=0.1), 0)
    assert sampled['held'] == 4 * 250 * 17
    columns = 25 + 225 * (1 - 0.999**16)
    assert columns == pytest.approx(25 + 225 * 16 / 1000, rel=1e-3)
    assert sampled['step'] == pytest.approx(4 * (columns * 16 + 4 * 16 * 8 + 320))
    assert sampled['logits'] == pytest.approx(4 * 16 * columns)
