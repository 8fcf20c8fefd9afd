"""Made-up cells of sweeps."""

from trainers.sweeping.results import CellResult

VERSIONS = {'python': '3.11.7', 'commit': 'abc'}
# Of three seeds. The differences of lambda_c 1 to 0 are 0.01, 0.02, 0.03, those of 2 nearly equal.
ACCURACIES = {0.0: (0.9, 0.92, 0.94), 1.0: (0.91, 0.94, 0.97), 2.0: (0.95, 0.9701, 0.9899)}


def cell(settings, final=None, status='finished', note='', folder='', **versions):
    results = final and {'final': final, 'versions': {**VERSIONS, **versions}, 'device': 'cpu'}
    return CellResult(settings, folder or f'runs/{settings.get("seed")}', results, status, note)


def three_settings(**more):
    """Cells of three lambda_c and three seeds, with the metric test_acc; `more` are settings."""
    return [
        cell({'lambda_c': weight, **more, 'seed': seed}, {'step': 100, 'test_acc': value})
        for weight, values in ACCURACIES.items()
        for seed, value in enumerate(values, 1)
    ]
