"""Pictures of a grid of settings: heat maps, and scatter plots side by side."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from cells import cell, three_settings
from gitloss.figures import encoding, grids, heat
from gitloss.figures.grids import Axis, Plot
from trainers.sweeping import pictures, results

ROWS, COLUMNS = Axis('lambda_c', ['0', '1']), Axis('lambda_g', ['0', '0.1', '1'])


def _heat(values, direction=True, panels=('',)):
    values = np.array(values, np.float64).reshape(len(panels), 2, 3)
    texts = np.vectorize(lambda value: f'{value:g}')(values).astype(object)
    figure = heat.heat_maps(panels, ROWS, COLUMNS, values, texts, 'accuracy', direction)
    encoding.png_bytes(figure)
    return figure


def _shades(axes):
    """The mean of red, green and blue of the cells of a panel."""
    return [np.mean(patch.get_facecolor()[:3]) for patch in axes.patches]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('direction, sign', [(True, 1), (None, 1), (False, -1)])
def test_a_better_value_is_brighter(direction, sign):
    axes = _heat([1, 2, 3, 4, 5, 6], direction).axes[0]
    assert (sign * np.diff(_shades(axes)) > 0).all()
    assert [text.get_text() for text in axes.texts] == list('123456')
    assert [label.get_text() for label in axes.get_xticklabels()] == ['0', '0.1', '1']
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('lambda_g', 'lambda_c')


def test_a_missing_cell_is_hatched_and_dark_cells_have_white_text():
    axes = _heat([1, np.nan, 3, 4, 5, 6]).axes[0]
    assert [bool(patch.get_hatch()) for patch in axes.patches] == [False, True] + [False] * 4
    assert [axes.texts[place].get_color() for place in (0, 1, 5)] == ['white', 'black', 'black']


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'values, is_logarithmic',
    [
        ([1, 2, 3, 4, 5, 100], True),
        ([0, 2, 3, 4, 5, 1000], False),
        ([7] * 6, False),
        ([0] * 6, False),
        ([np.nan] * 6, False),
    ],
)
def test_the_scale(values, is_logarithmic):
    """Logarithmic from two orders of magnitude on; equal values, and none at all, have a scale."""
    bar = _heat(values).axes[-1]
    assert (bar.get_yscale() == 'log') == is_logarithmic


def test_panels_have_one_scale_and_do_not_overlap():
    figure = _heat(np.arange(36), panels=[f'form = {name}' for name in 'abcdef'])
    *panels, _ = figure.axes
    assert [axes.get_title() for axes in panels] == [f'form = {name}' for name in 'abcdef']
    assert _shades(panels[0])[0] < _shades(panels[5])[5]
    boxes = [axes.get_tightbbox(figure.canvas.get_renderer()) for axes in panels]
    for place, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_long_names_do_not_overlap():
    columns = Axis('model', ['mnist_cnn', 'applications:MobileNetV2', 'x' * 60])
    values = np.zeros((1, 1, 3))
    figure = heat.heat_maps([''], Axis('', ['']), columns, values, values, 'loss')
    renderer = figure.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in figure.axes[0].get_xticklabels()]
    assert all(one.x1 < other.x0 for one, other in zip(boxes, boxes[1:]))


def test_too_large_a_grid_is_refused():
    values = np.zeros((1, 1, 1001))
    axis = Axis('seed', [''] * 1001)
    with pytest.raises(ValueError, match='cells: expected at most 1000 in a heat map'):
        heat.heat_maps([''], Axis('', ['']), axis, values, values, '')
    with pytest.raises(ValueError, match='plots: expected at most 144 in a scatter grid'):
        grids.scatter_grid(Axis('', ['']), axis, {}, '', {})


def _plot(size, classes=3):
    labels = np.arange(60) % classes
    means = size * np.stack([np.cos(np.arange(classes)), np.sin(np.arange(classes))], axis=1)
    return Plot(means[labels], labels, means, f'size {size}')


@pytest.mark.filterwarnings('error')
def test_a_scatter_grid():
    """Half-widths of 1 and 2 are drawn with the axes of 2."""
    drawn = {(0, 0): _plot(1), (1, 2): _plot(2)}
    figure = grids.scatter_grid(ROWS, COLUMNS, drawn, 'embeddings', {(0, 1): 'failed'})
    encoding.png_bytes(figure)
    assert len(figure.axes) == 6 and len(figure.legends) == 1
    first, second, last = (figure.axes[place] for place in (0, 1, 5))
    assert first.get_title() == 'size 1' and first.get_ylabel() == 'lambda_c = 0'
    assert first.get_xlim() == last.get_xlim() == (-2.16, 2.16)
    assert 'failed' in [text.get_text() for text in second.texts] and second.patch.get_hatch()
    assert 'lambda_g = 0.1' in [text.get_text() for text in second.texts]


def test_plots_of_different_sizes_say_their_axes():
    """A half-width is 1.08 times the largest coordinate, that of class 0."""
    drawn = {(0, 0): _plot(1), (1, 2): _plot(1000)}
    axes = grids.scatter_grid(ROWS, COLUMNS, drawn, '', {}).axes
    assert axes[0].get_title() == 'size 1   axes ±1.08'
    assert axes[5].get_title() == 'size 1000   axes ±1080'


def test_no_legend_of_many_classes_or_different_ones():
    for plots in ([_plot(1, 30)], [_plot(1, 3), _plot(1, 4)]):
        drawn = {(0, place): plot for place, plot in enumerate(plots)}
        assert not grids.scatter_grid(ROWS, COLUMNS, drawn, '', {}).legends


def test_the_arrangement():
    """Flags of numbers are rows and columns, whatever their place; one of a single value is left
    out, and the third is the panel.
    """
    cells = [
        cell({'form': form, 'alpha': 0.5, 'lambda_c': c, 'lambda_g': g, 'seed': 1}, {'test_acc': 1})
        for form in ('pairwise', 'elementwise')
        for c in (0.0, 10.0, 2.0)
        for g in (0.1, 0.0)
    ]
    found = pictures.arranged(results.grouped(cells))
    assert found.panels == ['form = elementwise', 'form = pairwise']
    assert found.rows == Axis('lambda_c', ['0', '2', '10'])
    assert found.columns == Axis('lambda_g', ['0', '0.1'])
    assert found.places == [(p, r, c) for p in range(2) for r in range(3) for c in range(2)]


def test_one_flag_is_along_the_columns_and_none_is_one_place():
    found = pictures.arranged(results.grouped(three_settings()))
    assert found.rows == Axis('', ['']) and found.columns.values == ['0', '1', '2']
    found = pictures.arranged(results.grouped(three_settings()[:3]))
    assert (found.panels, found.rows, found.columns) == ([''], Axis('', ['']), Axis('', ['']))


def _with_frames(tmp_path, dim=3):
    """Cells whose folders have the data of two scatter plots each."""
    random, cells = np.random.RandomState(0), []
    for number, each in enumerate(three_settings()):
        folder = tmp_path / str(number) / 'plots' / 'frames'
        folder.mkdir(parents=True)
        for step in (5, 10):
            points = random.randn(20, dim).astype(np.float32)
            content = {'points': points, 'labels': np.arange(20) % 4, 'means': points[:4]}
            np.savez(str(folder / f'frame-{step:08}.npz'), title=np.array('x'), **content)
        cells.append(each._replace(folder=str(tmp_path / str(number))))
    return cells


@pytest.mark.parametrize('dim', [1, 2, 3])
def test_pictures_of_a_sweep(tmp_path, dim):
    (tmp_path / 'out').mkdir()
    cells = _with_frames(tmp_path, dim)
    paths = pictures.write_pictures(str(tmp_path / 'out'), cells)
    names = ['heat-test_acc.png', 'scatter-grid.png']
    assert [os.path.basename(path) for path in paths] == names
    assert sorted(os.listdir(str(tmp_path / 'out'))) == names
    contents = [(tmp_path / 'out' / name).read_bytes() for name in names]
    assert all(Image.open(io.BytesIO(content)).size[0] > 400 for content in contents)
    pictures.write_pictures(str(tmp_path / 'out'), cells[::-1])
    assert [(tmp_path / 'out' / name).read_bytes() for name in names] == contents


def test_damaged_data_of_a_plot_is_a_warning_and_the_next_seed_is_drawn(tmp_path, caplog):
    cells = _with_frames(tmp_path)
    path = tmp_path / '0' / 'plots' / 'frames' / 'frame-00000010.npz'
    path.write_bytes(path.read_bytes()[:100])
    assert len(pictures.write_pictures(str(tmp_path), cells)) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(f'no scatter plot from {path}: ')


def test_without_data_there_is_no_scatter_grid_and_of_one_setting_no_heat_map(tmp_path, caplog):
    assert pictures.write_pictures(str(tmp_path), three_settings()[:3]) == []
    assert os.listdir(str(tmp_path)) == [] and not caplog.records


def test_a_grid_that_is_too_large_to_draw_is_a_warning(tmp_path, caplog):
    cells = [cell({'alpha': place, 'seed': 1}, {'test_acc': 1.0}) for place in range(1001)]
    assert pictures.write_pictures(str(tmp_path), cells) == []
    assert caplog.records[0].getMessage() == (
        'no heat-test_acc.png: cells: expected at most 1000 in a heat map. Received: 1001'
    )
