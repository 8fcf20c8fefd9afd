"""The pictures of a run, from made-up arrays, without TensorFlow."""

import gc
import json
import os
import weakref

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from drawings import measured
from gitloss.figures import confusion, plots


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
    curves = dict.fromkeys(
        ('losses.png', 'distances.png', 'gradients.png', 'cosines.png', 'pairs.png'), (720, 420)
    )
    confusion = sizes.pop('confusion.png')
    assert (
        sizes == dict(scatters, **dict(curves, **{'scatter.gif': (720, 640)}))
        and min(confusion) >= 400
    )
    assert Image.open(str(tmp_path / 'plots' / 'scatter.gif')).n_frames == 3
    assert not caplog.records


def test_an_animation_is_bounded_and_drawn_one_frame_at_a_time(tmp_path, monkeypatch, caplog):
    """110 measurements: all have their picture, the animation has 100 frames, the last one among
    them. When a figure is drawn, at most the one before it is still alive; every 50th is looked at.
    """
    alive, most = weakref.WeakSet(), []

    def small(points, labels, means, title, limit):
        if len(most) % 50 == 49:
            gc.collect()
        most.append(len(alive) if len(most) % 50 == 49 else 0)
        figure = Figure(figsize=(0.2, 0.2), facecolor='black' if 'step 110 ' in title else 'white')
        FigureCanvasAgg(figure)
        alive.add(figure)
        return figure

    monkeypatch.setattr(plots, 'scatter', small)
    pictures, _, logs = measured(tmp_path, steps=range(1, 111))
    assert len(most) == 110
    pictures.on_train_end(logs)
    assert len(most) == 220 and max(most) <= 1 and not caplog.records
    assert len(list((tmp_path / 'plots').glob('scatter-*.png'))) == 110
    animation = Image.open(str(tmp_path / 'plots' / 'scatter.gif'))
    durations, dark = [], []
    for number in range(animation.n_frames):
        animation.seek(number)
        durations.append(animation.info['duration'])
        dark.append(np.asarray(animation.convert('L')).max() < 10)
    # Equal frames become one that is shown as long: 99 white ones of 0.7 s, then the last.
    assert sum(durations) == 99 * 700 + 2100 and dark[-1] and sum(dark) == 1


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
    with pytest.raises(ValueError, match='none; pip install "scikit-learn>=1.0"$'):
        measured(tmp_path, projection='tsne')


def test_no_matplotlib_is_said_before_the_run(tmp_path, monkeypatch):
    """Which imports it only at the first measurement."""
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ValueError, match='^pictures: expected Matplotlib .* requirements.txt$'):
        measured(tmp_path)


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
