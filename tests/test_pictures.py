"""Pictures and the report, from made-up arrays, without TensorFlow."""

import gc
import io
import json
import os
import re
import weakref

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from callbacks.base import RunHandle
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from callbacks.figures import Figures
from callbacks.history import History
from callbacks.pictures import Pictures
from callbacks.report import Report
from gitloss import metrics
from gitloss.figures import confusion, encoding, plots, view
from gitloss.metrics import declaration
from helpers import Points
from trainers.engine.meter import Meter


class FakeHandle(RunHandle):
    num_classes, step = 3, 0
    metrics = declaration.by_name(
        Meter(('loss', 'git_loss', 'accuracy'), 16).metrics
        + [*Evaluation.metrics, *CenterMeasurement.metrics]
    )

    def __init__(self, run_dir):
        self.run_dir = str(run_dir)


def measured(tmp_path, steps=(5, 10, 15), dim=2, step=0, projection='pca'):
    """(a Pictures callback after measurements at `steps`, with embeddings that grow with the step;
    its history; the last logs).
    """
    random = np.random.RandomState(0)
    labels = (np.arange(60) % 3).astype(np.int32)
    evaluation, centers, history = (
        Evaluation(Points(None, labels)),
        CenterMeasurement(None),
        History(),
    )
    figures = Figures(evaluation, centers)
    pictures = Pictures(figures, history, projection)
    pictures.handle = figures.handle = FakeHandle(tmp_path)
    pictures.handle.step = step
    pictures.on_train_begin({})
    base = random.randn(3, dim)
    logs = {}
    for number, at in enumerate(steps, 1):
        evaluation.embeddings = (at * (base[labels] + 0.1 * random.randn(60, dim))).astype(
            np.float32
        )
        evaluation.predictions = evaluation.all_predictions = labels
        centers.means = at * base
        logs = {
            'step': at,
            'train_loss': 1.0 / at,
            'valid_loss': 1.1 / at,
            'valid_acc': 0.9,
            'inter_cls_dist': 1.0 * at,
            'intra_cls_dist': 0.1,
            'inter_over_intra': 10.0 * at,
        }
        history.rows.append(logs)
        figures.on_epoch_end(number, logs)
        pictures.on_epoch_end(number, logs)
    return pictures, history, logs


@pytest.mark.parametrize('dim', [1, 2, 5])
def test_every_picture_of_a_run(tmp_path, dim, caplog):
    pictures, _, logs = measured(tmp_path, dim=dim)
    pictures.on_train_end(logs)
    sizes = {
        name: Image.open(str(tmp_path / 'plots' / name)).size
        for name in os.listdir(str(tmp_path / 'plots'))
        if '.' in name
    }
    scatters = {f'scatter-{step:06}.png': (720, 640) for step in (5, 10, 15)}
    curves = dict.fromkeys(('losses.png', 'distances.png', 'pairs.png'), (720, 420))
    confusion = sizes.pop('confusion.png')
    assert (
        sizes == dict(scatters, **dict(curves, **{'scatter.gif': (720, 640)}))
        and min(confusion) >= 400
    )
    assert Image.open(str(tmp_path / 'plots' / 'scatter.gif')).n_frames == 3
    assert not caplog.records


def test_an_animation_keeps_the_colours_of_the_classes():
    """A class of one point beside nine classes of 200: where the PNG has the exact color of a
    class, the GIF has it within 8 of 255, in all frames.
    """
    random = np.random.RandomState(0)
    labels = np.append(np.repeat(np.arange(9), 200), 9)
    points = np.stack([np.cos(labels), np.sin(labels)], axis=1) + 0.05 * random.randn(
        len(labels), 2
    )
    figures = [
        plots.scatter(points * size, labels, np.full((10, 2), np.nan), limit=3.0) for size in (1, 2)
    ]
    frames = [encoding.gif_frame(figure) for figure in figures]
    animation = Image.open(io.BytesIO(encoding.gif_bytes(frames)))
    for number, figure in enumerate(figures):
        animation.seek(number)
        drawn = np.asarray(
            Image.open(io.BytesIO(encoding.png_bytes(figure))).convert('RGB')
        ).astype(int)
        kept = np.asarray(animation.convert('RGB')).astype(int)
        assert kept[drawn.min(axis=-1) == 255].min() == 255  # white stays white
        for colour in plots.COLOURS:
            rgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
            there = np.abs(drawn - rgb).max(axis=-1) <= 1
            assert there.sum() > 20 and np.abs(kept[there] - rgb).max() <= 8, (number, colour)


def test_an_animation_is_bounded_and_drawn_one_frame_at_a_time(tmp_path, monkeypatch, caplog):
    """250 measurements: all have their picture, the animation has 100 frames, the last one among
    them. When a figure is drawn, at most the one before it is still alive; every 50th is looked at.
    """
    alive, most = weakref.WeakSet(), []

    def small(points, labels, means, title, limit):
        if len(most) % 50 == 49:
            gc.collect()
        most.append(len(alive) if len(most) % 50 == 49 else 0)
        figure = Figure(figsize=(0.2, 0.2), facecolor='black' if 'step 250 ' in title else 'white')
        FigureCanvasAgg(figure)
        alive.add(figure)
        return figure

    monkeypatch.setattr(plots, 'scatter', small)
    pictures, _, logs = measured(tmp_path, steps=range(1, 251))
    assert len(most) == 250
    pictures.on_train_end(logs)
    assert len(most) == 500 and max(most) <= 1 and not caplog.records
    assert len(list((tmp_path / 'plots').glob('scatter-*.png'))) == 250
    animation = Image.open(str(tmp_path / 'plots' / 'scatter.gif'))
    durations, dark = [], []
    for number in range(animation.n_frames):
        animation.seek(number)
        durations.append(animation.info['duration'])
        dark.append(np.asarray(animation.convert('L')).max() < 10)
    # Equal frames become one that is shown as long: 99 white ones of 0.7 s, then the last.
    assert sum(durations) == 99 * 700 + 2100 and dark[-1] and sum(dark) == 1


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'values, scale', [([0.0, 0.0], 'linear'), ([0.0, 0.5], 'log'), ([], 'linear')]
)
def test_curves_of_zeros_have_a_linear_axis(values, scale, caplog):
    figure = plots.curves({'loss': (range(len(values)), values)}, 'losses', 'loss')
    encoding.png_bytes(figure)
    assert figure.axes[0].get_yscale() == scale and not caplog.records


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('genuine', [[], [0.0]])
def test_pairs_of_one_sample_or_of_equal_ones(genuine, caplog):
    figure = plots.distances(np.array(genuine), np.array([]))
    encoding.png_bytes(figure)
    assert (figure.axes[0].get_legend() is None) == (not genuine) and not caplog.records


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('count', [1, 2, 3, 9])
def test_a_plane_of_few_or_equal_samples(count):
    """No variance: any two orthogonal axes will do, and all points are at the origin."""
    points = np.ones((count, 5), np.float32)
    np.testing.assert_array_equal(view.plane(points)(points), np.zeros((count, 2)))
    _, axes = view.principal_axes(points.astype(np.float64))
    np.testing.assert_allclose(axes.T.dot(axes), np.eye(2), atol=1e-12)


@pytest.mark.parametrize('kind', ['fifo', 'device', 'noise'])
def test_a_frame_that_cannot_be_read_is_one_warning(tmp_path, kind, caplog):
    """A FIFO without a writer must not make the end of the run wait."""
    pictures, _, logs = measured(tmp_path)
    path = tmp_path / 'plots' / 'frames' / 'frame-00000010.npz'
    path.unlink()
    if kind == 'fifo':
        os.mkfifo(str(path))
    elif kind == 'device':
        os.symlink('/dev/zero', str(path))
    else:
        path.write_bytes(b'noise')
    with caplog.at_level('WARNING', logger='gitloss'):
        pictures.on_train_end(logs)
    assert [record.message.split(' at')[0] for record in caplog.records] == [
        'no picture (animation)'
    ]


def test_tsne_of_the_last_measurement(tmp_path, caplog):
    """Three groups 0.1 wide and about 5 apart: in the plane the nearest neighbor of every point is
    of its class, and so is the nearest center.
    """
    pytest.importorskip('sklearn')
    drawn = []
    pictures, _, logs = measured(tmp_path, dim=5, projection='tsne')
    scatter = plots.scatter
    try:
        plots.scatter = lambda *arguments: (drawn.append(arguments[:3]), scatter(*arguments))[1]
        pictures.on_train_end(logs)
    finally:
        plots.scatter = scatter
    points, labels, means = drawn[-1]
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
    assert np.array_equal(labels[apart.argmin(axis=1)], labels)
    assert np.array_equal(
        labels[np.linalg.norm(points[:, None] - means[None], axis=2).argmin(axis=0)], [0, 1, 2]
    )
    assert (
        Image.open(str(tmp_path / 'plots' / 'tsne.png')).size == (720, 640) and not caplog.records
    )


def test_tsne_without_scikit_learn_is_said_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ValueError, match='^--projection: expected scikit-learn'):
        measured(tmp_path, projection='tsne')


def test_all_scatters_of_a_run_have_the_same_axes(tmp_path, monkeypatch):
    """The embeddings grow until the last measurement: its extent is the half-width of all pictures
    drawn at the end.
    """
    pictures, _, logs = measured(tmp_path)
    limits = []
    scatter = plots.scatter
    monkeypatch.setattr(
        plots,
        'scatter',
        lambda points, labels, means, title, limit: (
            limits.append(limit),
            scatter(points, labels, means, title, limit),
        )[1],
    )
    pictures.on_train_end(logs)
    points = pictures.figures.evaluation.embeddings
    assert (
        limits
        == [
            pytest.approx(
                1.08 * max(np.abs(points).max(), np.abs(pictures.figures.centers.means).max()),
                rel=1e-6,
            )
        ]
        * 3
    )


def test_a_measurement_is_drawn_once_for_all_who_show_it(tmp_path, monkeypatch):
    """The file equals the picture that other callbacks get; the confusion matrix at the end is that
    of the last measurement. The next measurement is drawn anew.
    """
    drawn = []
    for module, name in ((plots, 'scatter'), (confusion, 'confusion_matrix')):
        draw = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, name=name, draw=draw: drawn.append(name) or draw(*args)
        )
    pictures, _, logs = measured(tmp_path, steps=(5, 10))
    shown = pictures.figures.scatter(), pictures.figures.confusion()
    assert drawn == ['scatter', 'scatter', 'confusion_matrix']
    assert (tmp_path / 'plots' / 'scatter-000010.png').read_bytes() == shown[0]
    pictures.on_train_end(logs)  # all scatters share a pair of axes: these differ
    assert drawn[3:] == ['scatter', 'scatter']
    assert (tmp_path / 'plots' / 'confusion.png').read_bytes() == shown[1]
    assert pictures.figures.title == 'step 10   valid acc 0.9000   inter 10.00   intra 0.10'


def test_a_continued_run_draws_the_whole_run_and_forgets_what_comes_again(tmp_path):
    """Killed after step 15, continued at 10: the frame of 15 is dropped and drawn again; the
    animation has 5, 10, 15, 20.
    """
    killed = measured(tmp_path)[0].figures
    pictures, _, logs = measured(tmp_path, steps=(15, 20), step=10)
    pictures.figures.load_state(json.loads(json.dumps(killed.state())))
    assert pictures.figures.state() == killed.state() and killed.state()['limit'] > 0  # the axes
    assert [step for step, _ in pictures.frames()] == [5, 10, 15, 20]
    pictures.on_train_end(logs)
    assert Image.open(str(tmp_path / 'plots' / 'scatter.gif')).n_frames == 4


def test_a_failing_picture_warns_once_and_stops_nothing(tmp_path, caplog):
    (tmp_path / 'plots').write_text('a file where the folder should be')
    with caplog.at_level('WARNING', logger='gitloss'):
        pictures, _, logs = measured(tmp_path)
        pictures.on_train_end(logs)
    # There is no frame to animate.
    assert [record.message.split(' at')[0] for record in caplog.records] == [
        f'no picture ({kind})' for kind in ('scatter', 'curves', 'pairs', 'confusion')
    ]


def test_a_folder_of_frames_that_cannot_be_tidied_stops_nothing(tmp_path, caplog, monkeypatch):
    """A file of another program is not a frame; one that cannot be removed, or a folder that cannot
    be read, is reported once.
    """
    measured(tmp_path)
    (tmp_path / 'plots' / 'frames' / 'my-notes.npz').write_text('years of work')
    assert [step for step, _ in measured(tmp_path, steps=(), step=15)[0].frames()] == [
        5,
        10,
        15,
    ] and not caplog.records

    def forbidden(path):
        raise PermissionError(13, 'Permission denied', path)

    for name, message in (('remove', 'frame-00000010.npz'), ('listdir', 'frames')):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, name, forbidden)
            pictures, _, _ = measured(tmp_path, steps=(10,), step=5)
            pictures.on_rewind(5)
        assert len(caplog.records) == 1 and caplog.records[0].message.startswith(
            'no picture (frames) at step 5: '
        )
        assert message in caplog.records[0].message
    assert (tmp_path / 'plots' / 'frames' / 'my-notes.npz').exists()


def test_thousands_of_classes_have_their_pictures_but_no_confusion_matrix(tmp_path, caplog):
    """One line is drawn for classes that look alike: 50 looks, and the centers."""
    pictures, _, logs = measured(tmp_path)
    pictures.handle.num_classes = 1001
    pictures.on_train_end(logs)
    assert not caplog.records and not (tmp_path / 'plots' / 'confusion.png').exists()
    labels = np.arange(3000) % 1001
    figure = plots.scatter(np.random.RandomState(0).randn(3000, 2), labels, np.zeros((1, 2)))
    lines = figure.axes[0].lines
    assert len(lines) == 51 and sum(len(line.get_xdata()) for line in lines[:50]) == 3000
    assert len(lines[0].get_xdata()) == np.sum(labels % 50 == 0)


def test_principal_axes():
    """Points along (3, 4, 0) / 5 with a little spread along the third axis: those two axes, largest
    entry positive.
    """
    along, across = np.linspace(-5, 5, 11)[:, None], np.array([[0.1], [-0.1]] * 5 + [[0.0]])
    points = 7.0 + along * np.array([[0.6, 0.8, 0.0]]) + across * np.array([[0.0, 0.0, 1.0]])
    origin, axes = view.principal_axes(points)
    np.testing.assert_allclose(origin, points.mean(axis=0))
    np.testing.assert_allclose(np.abs(axes[:, 0]), [0.6, 0.8, 0.0], atol=0.02)
    assert axes[1, 0] > 0.79 and axes[2, 1] > 0.99


def test_pair_distances():
    """(0,0) and (3,4) of class 0: genuine 5. (0,1) of class 1: impostors |(0,0)-(0,1)| = 1 and
    |(3,4)-(0,1)| = sqrt(18).
    """
    genuine, impostor = metrics.pair_distances(
        np.array([[0, 0], [3, 4], [0, 1]], np.float32), np.array([0, 0, 1])
    )
    np.testing.assert_allclose(genuine, [5.0])
    np.testing.assert_allclose(sorted(impostor), [1.0, np.sqrt(18)])


@pytest.mark.parametrize(
    'count, most, numbers',
    [(0, 5, []), (1, 5, [0]), (5, 5, [0, 1, 2, 3, 4]), (10, 4, [0, 3, 6, 9]), (7, 1, [0])],
)
def test_an_even_choice(count, most, numbers):
    assert metrics.evenly_spaced(count, most).tolist() == numbers


def test_pairs_of_a_set_that_is_sorted_by_class():
    """4000 samples in four classes, in order of class: 1000 evenly spaced ones have 250 of each
    class, 4 * 250 * 249 / 2 genuine pairs and 6 * 250^2 impostors. Classes 0 and 1 are on the first
    axis, 2 and 3 on the second: both axes are in the plane.
    """
    labels = np.repeat(np.arange(4), 1000)
    genuine, impostor = metrics.pair_distances(labels[:, None] * np.ones((1, 3)), labels)
    assert (len(genuine), len(impostor)) == (4 * 250 * 249 // 2, 6 * 250**2)
    corners = np.array([[9, 0, 0], [-9, 0, 0], [0, 0, 5], [0, 0, -5]], np.float64)
    np.testing.assert_allclose(
        np.abs(view.plane(corners[labels])(corners)), np.abs(corners[:, [0, 2]]), atol=0.1
    )


def test_report_holds_everything_and_needs_no_network(tmp_path):
    pictures, history, logs = measured(tmp_path)
    pictures.on_train_end(logs)
    final = dict(
        logs, train_acc=1.0, valid_git_loss=0.25, test_acc=0.875, seconds=2.5, images_per_sec=1e9
    )
    results = {
        'network': 'mnist_cnn',
        'options': {'dataset': 'mnist', 'data_path': '<b>&'},
        'versions': {'tensorflow': '2.21'},
        'final': final,
        'throughput': {'images_per_sec': 1234.5},
        'seconds': {'total': 77.7},
    }
    (tmp_path / 'results.json').write_text(json.dumps(results))
    (tmp_path / 'history.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in history.rows))
    report = Report()
    report.handle = pictures.handle
    report.on_train_end(logs)
    text = (tmp_path / 'report.html').read_text()
    assert (
        len(re.findall('<img [^>]*src="data:image/(?:png|gif);base64,', text))
        == 6
        == text.count('<img ')
    )
    assert (
        'http' not in text
        and '&lt;b&gt;&amp;' in text
        and '<title>Git loss: mnist, mnist_cnn, 15 steps</title>' in text
    )
    # By set, under a header: accuracy, loss, git loss. Step, two distances and their ratio,
    # throughput, time. Then the other tables.
    assert text.count('<tr>') == (1 + 3) + (4 + 2) + 4 + 2 + 1
    assert (
        '<td>accuracy</td><td class="n">1.0000</td><td class="n">0.9000</td><td '
        'class="n">0.8750</td>' in text
    )
    assert (
        '<td>git loss</td><td class="n"></td><td class="n">0.2500</td><td class="n"></td>' in text
    )
    assert (
        '<td>inter / intra</td><td class="n">150.0</td>' in text
        and '>1234<' in text
        and '1000000000' not in text
    )


def test_a_run_without_results_has_no_report_and_says_so(tmp_path, caplog):
    report = Report()
    report.handle = FakeHandle(tmp_path)
    with caplog.at_level('WARNING', logger='gitloss'):
        report.on_train_end({})
    assert 'no report.html' in caplog.text and not (tmp_path / 'report.html').exists()
