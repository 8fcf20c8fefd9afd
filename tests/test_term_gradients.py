"""The gradients of the terms by the embeddings: against float64 NumPy, over workers, resumed."""

import numpy as np
import pytest

import crew
import toys
from callbacks.gradients import COSINES, NORMS, Gradients, norms_and_cosines
from gitloss import data
from loss_reference import numpy_center, numpy_git
from runs import StopAt, Watch, assert_same_run, fit, history_of, trainer_of, weights_of

NAMES = {metric.name for metric in Gradients.metrics}


def gradients_of(row):
    return {name: value for name, value in row.items() if name in NAMES}


def numpy_softmax(x, labels, slope, kernel, bias):
    """Gradient of the mean cross-entropy of z = p kernel + bias, p = max(x, 0) + slope min(x, 0):
    dL/dz = (softmax(z) - onehot) / batch; dL/dx = dL/dz kernel^T, times the slope where x < 0.
    """
    logits = (np.maximum(x, 0) + slope * np.minimum(x, 0)).dot(kernel) + bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(x)), labels] -= 1.0
    return shares.dot(kernel.T) / len(x) * np.where(x > 0, 1.0, slope)


def expected_of(gradients):
    """{name: norm or cosine} of {term: [batch, dim]}: |g| and g.h / (|g| |h|) of all numbers."""
    found = {f'gradient_{term}': np.linalg.norm(g) for term, g in gradients.items()}
    for one, other in (('softmax', 'center'), ('softmax', 'git'), ('center', 'git')):
        if one in gradients and other in gradients:
            lengths = found[f'gradient_{one}'] * found[f'gradient_{other}']
            dot = np.sum(gradients[one] * gradients[other])
            found[f'cosine_{one}_{other}'] = dot / lengths
    return found


class First(Watch):
    """Keeps the classifier before the first step, the embeddings of each step, and its logs."""

    def on_train_begin(self, logs=None):
        net = self.handle.net
        names = [weight.op.name for weight in net.classifier.weights]
        values = self.handle.session.run(net.classifier.weights)
        self.weights = dict(zip(names, (value.astype(np.float64) for value in values)))


@pytest.mark.parametrize(
    'changes',
    [
        {'git_loss_form': 'elementwise'},
        {'git_loss_form': 'pairwise', 'lambda_c': 0.5, 'lambda_g': 3.0},
        {'git_loss_form': 'pairwise', 'embedding_dim': 16, 'shard_classes': True},
        {'shard_classes': True, 'class_shards': 2, 'lambda_g': 2.0},
        {'loss_scale': '1024', 'lambda_c': 0.25},
        {'lambda_g': 0.0},
        {'lambda_c': 0.0, 'lambda_g': 0.0, 'weight_decay': 0.1},
    ],
)
def test_norms_and_cosines_of_a_step(tmp_path, changes):
    """The first step, whose centers are 0, by the formulas of the terms. A term of weight 0 is left
    out; loss scaling and weight decay change nothing.
    """
    settings = toys.options(tmp_path, steps=1, evaluate=False, **changes)
    dataset = data.load('mnist', settings.data_folder)
    first = First(lambda handle: {'embeddings': handle.net.embeddings})
    logs = trainer_of(settings, [Gradients(), first], dataset).fit()
    labels = data.BatchStream(dataset.train, 16, settings.seed).batch(0)[1]
    x, weights = first.logs[0]['embeddings'].astype(np.float64), first.weights
    if settings.shard_classes:  # rows of classes, in parts
        kernel = np.concatenate([w for name, w in weights.items() if 'class_weights' in name]).T
    else:
        kernel = weights['logits/kernel']
    rows = np.zeros((4, settings.embedding_dim))
    gradients = {'softmax': numpy_softmax(x, labels, weights['prelu/alpha'], kernel, 0.0)}
    for term, weight, reference in (
        ('center', settings.lambda_c, numpy_center),
        ('git', settings.lambda_g, numpy_git),
    ):
        if weight:
            gradients[term] = weight * reference(x, labels, rows, settings.git_loss_form)[1]
    expected = expected_of(gradients)
    assert gradients_of(first.logs[0]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert gradients_of(logs) == gradients_of(first.logs[0])
    assert 'gradient_products' not in first.logs[0]


def test_a_measurement_has_the_means_of_its_steps(tmp_path):
    watch = Watch()
    settings = toys.options(tmp_path)
    fit(settings, Gradients(), watch)
    for number, row in enumerate(history_of(settings)):
        steps = watch.logs[4 * number : 4 * number + 4]
        assert set(gradients_of(row)) == NAMES
        for name in NAMES:
            assert row[name] == pytest.approx(np.mean([logs[name] for logs in steps]), rel=1e-12)


@pytest.mark.parametrize('save_every, killed_at', [('', 6), ('3', 8)])
def test_a_resumed_run_has_the_same_means_to_the_last_bit(tmp_path, save_every, killed_at):
    whole = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'whole'))
    broken = toys.options(tmp_path, exp_save_dir=str(tmp_path / 'broken'), save_every=save_every)
    fit(whole, Gradients())
    with pytest.raises(KeyboardInterrupt):
        fit(broken, Gradients(), StopAt(killed_at))
    fit(broken, Gradients())
    assert_same_run(whole, broken, 12)
    assert set(gradients_of(history_of(broken)[-1])) == NAMES


def test_measuring_changes_nothing(tmp_path):
    """Weights, slots and centers with the callback and without it are equal to the last bit."""
    runs = [toys.options(tmp_path, exp_save_dir=str(tmp_path / name)) for name in ('a', 'b')]
    fit(runs[0])
    fit(runs[1], Gradients())
    without = [{k: v for k, v in row.items() if k not in NAMES} for row in history_of(runs[1])]
    assert history_of(runs[0]) == without
    left, right = (weights_of(settings, 12) for settings in runs)
    assert set(left) == set(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_frozen_embeddings_have_none_until_they_are_trained(tmp_path):
    """Of 12 steps, measured every 4, the first 6 train the classifier alone."""
    settings = toys.options(tmp_path, freeze='backbone,embedding', unfreeze_at=6)
    fit(settings, Gradients())
    first, second, third = map(gradients_of, history_of(settings))
    assert first == {} and set(second) == set(third) == NAMES


@pytest.mark.parametrize('is_sharded', [False, True])
def test_two_workers_have_the_gradients_of_one(tmp_path, is_sharded):
    """Each has half of the batch; sums of squares and products are added over both."""
    changes = {'shard_classes': is_sharded, 'evaluate': False}
    one, two = (crew.settings_of(tmp_path, name, **changes) for name in ('one', 'two'))
    crew.trainer_of(one, first=[Gradients()]).fit()
    logs = crew.together(2, lambda group, _: crew.trainer_of(two, group, [Gradients()]).fit())
    assert gradients_of(logs[0]) == gradients_of(logs[1])
    rows = [list(map(gradients_of, history_of(settings))) for settings in (one, two)]
    assert len(rows[0]) == 2
    for mine, its in zip(*rows):
        assert set(mine) == NAMES and its == pytest.approx(mine, rel=1e-3, abs=1e-4)


def test_gradients_without_length_have_no_angle():
    """|softmax| = 3, |git| = 4, softmax.git = -6: -6 / 12. The center term has weight 0. A cosine
    that rounding puts outside is 1; what is not finite is left out.
    """
    values = norms_and_cosines(np.float32([[9, 0, -6], [0, 0, 0], [-6, 0, 16]]))
    assert values == {'gradient_softmax': 3.0, 'gradient_git': 4.0, 'cosine_softmax_git': -0.5}
    values = norms_and_cosines(np.array([[1, 1.1, 0], [1.1, 1, 0], [0, 0, np.inf]]))
    assert values == {'gradient_softmax': 1, 'gradient_center': 1, 'cosine_softmax_center': 1}
    assert norms_and_cosines(np.full((3, 3), np.nan)) == {}
    assert [metric.tag for metric in (NORMS[2], COSINES[2])] == [
        'gradients/gradient_git',
        'gradients/cosine_center_git',
    ]
