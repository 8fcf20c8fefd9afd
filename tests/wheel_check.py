"""Checks the installed package against the checkout that it was built from:

    python -I tests/wheel_check.py CHECKOUT

With -I, Python finds what is installed and nothing of the checkout. The environment holds the wheel
and what the wheel asks for.
"""

import glob
import importlib
import os
import sys

import numpy as np

if sys.version_info >= (3, 8):
    from importlib import metadata
else:
    import importlib_metadata as metadata

# On TensorFlow 1.15 these refuse to be imported.
REFUSED = ('gitloss.keras.keras3', 'gitloss.keras.tf_keras') if sys.version_info < (3, 8) else ()
X = np.array([[0.0, 3.0], [4.0, 0.0], [1.0, 1.0], [-2.0, 0.5]])
LABELS = np.array([0, 1, 1, 2])
CENTERS = np.array([[0.5, 2.0], [3.0, 1.0], [-1.0, 0.0]])


def check_files(checkout):
    """Every file of gitloss/ is in the wheel, the licence too, and nothing else. Returns the names
    of the modules.
    """
    paths = glob.glob(os.path.join(checkout, 'gitloss', '**', '*.py'), recursive=True)
    sources = {os.path.relpath(path, checkout).replace(os.sep, '/') for path in paths}
    packed = {str(file) for file in metadata.files('gitloss')}
    packed = {name for name in packed if '__pycache__' not in name}
    about = {name for name in packed if name.split('/')[0].endswith('.dist-info')}
    lacking = sorted({*sources, 'gitloss/py.typed'} - packed)
    assert not lacking, f'the wheel lacks {", ".join(lacking)}'
    more = sorted(packed - about - sources - {'gitloss/py.typed'})
    assert not more, f'the wheel has {", ".join(more)}'
    assert any('LICENSE' in name for name in about), 'the wheel lacks LICENSE'
    return sorted(name[: -len('.py')].replace('/', '.') for name in sources)


def check_version(checkout):
    import gitloss

    installed = os.path.dirname(os.path.dirname(os.path.realpath(gitloss.__file__)))
    assert installed != os.path.realpath(checkout), 'gitloss is imported from the checkout'
    assert gitloss.__version__ == metadata.version('gitloss'), metadata.version('gitloss')
    return f'gitloss {gitloss.__version__}'


def import_all(modules):
    for name in modules:
        importlib.import_module(name.replace('.__init__', ''))


def check_metrics():
    """An impostor scores 1, the three genuine pairs 3, 2 and 0: two of the three are above it, so
    the area under the curve is 2/3. Each of the four points is nearest to the one of its class.
    """
    from gitloss.metrics.retrieval import retrieval
    from gitloss.metrics.verification import Roc

    roc = Roc(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, True]))
    assert abs(roc.auc() - 2 / 3) < 1e-12, roc.auc()
    points, labels = np.array([[0, 1], [0.1, 1], [1, 0], [1, 0.1]]), np.array([0, 0, 1, 1])
    assert retrieval(points, labels).recall_at[1] == 1.0
    return roc


def check_figures(roc):
    from gitloss.figures import encoding, verification

    picture = encoding.png_bytes(verification.roc({'pairs': roc}))
    assert picture[:8] == b'\x89PNG\r\n\x1a\n', picture[:8]
    assert (int.from_bytes(picture[16:20], 'big'), int.from_bytes(picture[20:24], 'big')) == (
        720,
        480,
    )


def check_losses():
    """The pairwise form, as in the paper: 1/2 mean_i d_ii and the mean over i != j of
    1 / (1 + d_ij), where d_ij is the squared distance of x_i and the center of y_j.
    """
    from gitloss import losses
    from gitloss.backend import tf

    distances = ((X[:, None] - CENTERS[LABELS][None]) ** 2).sum(axis=2)
    apart = ~np.eye(len(X), dtype=bool)
    expected = [distances.diagonal().mean() / 2, (1 / (1 + distances[apart])).mean()]
    with tf.Graph().as_default(), tf.Session() as session:
        terms = [
            f(X, LABELS, CENTERS, form='pairwise') for f in (losses.center_loss, losses.git_loss)
        ]
        np.testing.assert_allclose(session.run(terms), expected, rtol=1e-12)


def main(checkout):
    modules = check_files(checkout)
    said = check_version(checkout)
    # First what needs no TensorFlow.
    import_all(name for name in modules if name.split('.')[1] in ('figures', 'metrics'))
    check_figures(check_metrics())
    assert 'tensorflow' not in sys.modules, 'metrics or figures import TensorFlow'
    import_all(name for name in modules if name not in REFUSED)
    check_losses()
    print(f'{said}: {len(modules)} modules, losses, metrics and figures work')


if __name__ == '__main__':
    main(sys.argv[1])
