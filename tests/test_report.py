"""report.html: one file with all numbers and pictures of a run."""

import json
import re

from callbacks.report import Report
from drawings import FakeHandle, measured

RESULTS = {
    'network': 'mnist_cnn',
    'options': {'dataset': 'mnist', 'data_path': '<b>&'},
    'versions': {'tensorflow': '2.21'},
    'throughput': {'images_per_sec': 1234.5},
    'seconds': {'total': 77.7},
}


def test_report_holds_everything_and_needs_no_network(tmp_path):
    """Rows: by set, under a header: accuracy, loss, git loss. Step, two distances and their ratio,
    throughput, time, norms of two gradients and their cosine. Then the other tables.
    """
    pictures, history, logs = measured(tmp_path)
    pictures.on_train_end(logs)
    (tmp_path / 'history.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in history.rows))
    final = dict(
        logs, train_acc=1.0, valid_git_loss=0.25, test_acc=0.875, seconds=2.5, images_per_sec=1e9
    )
    (tmp_path / 'results.json').write_text(json.dumps(dict(RESULTS, final=final)))
    report = Report()
    report.handle = pictures.handle
    report.on_train_end(logs)
    text = (tmp_path / 'report.html').read_text()
    pictures = re.findall('<img [^>]*src="data:image/(?:png|gif);base64,', text)
    assert len(pictures) == text.count('<img ') == 8
    assert text.count('<tr>') == (1 + 3) + (4 + 2 + 3) + 4 + 2 + 1
    for part in (
        '&lt;b&gt;&amp;',
        '<title>Git loss: mnist, mnist_cnn, 15 steps</title>',
        '<td>accuracy</td><td class="n">1.0000</td><td class="n">0.9000</td>'
        '<td class="n">0.8750</td>',
        '<td>git loss</td><td class="n"></td><td class="n">0.2500</td><td class="n"></td>',
        '<td>inter / intra</td><td class="n">150.0</td>',
        '>1234<',
        '<td>cosine, softmax and git</td><td class="n">-0.5000</td>',
        '<img alt="gradients.png"',
        '<img alt="cosines.png"',
    ):
        assert part in text
    assert 'http' not in text and '1000000000' not in text


def test_a_run_without_results_has_no_report_and_says_so(tmp_path, caplog):
    report = Report()
    report.handle = FakeHandle(tmp_path)
    with caplog.at_level('WARNING', logger='gitloss'):
        report.on_train_end({})
    assert 'no report.html' in caplog.text and not (tmp_path / 'report.html').exists()
