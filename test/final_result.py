"""What the model zoo looks for after a training: the `Final result` block, ${CaseName}.log,
train_${CaseName}_loss.txt.

    python test/final_result.py acc|perf [the arguments that the trainer was given]

Everything comes from the run's results.json and history.jsonl, which the trainer wrote.
"""

from __future__ import annotations

import json
import os
import platform
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from trainers import options as options_module  # noqa: E402

NETWORK = 'Gitloss_ID1277_for_TensorFlow'


def _number(form, value):
    return form % value if value is not None else 'nan'


def _rank_size():
    return int(os.environ.get('RANK_SIZE') or 1)


def case_name(results, suffix):
    return f'{NETWORK}_bs{results["options"]["batch_size"]}_{_rank_size()}p_{suffix}'


def block(results):
    """The lines printed at the end. Accuracies are fractions; train_acc is the mean since the
    measurement before.
    """
    final, throughput = results['final'], results['throughput']
    lines = [
        '------------------ Final result ------------------',
        'Final Performance images/sec : ' + _number('%.2f', throughput['images_per_sec']),
        'Final Performance sec/step : ' + _number('%.4f', throughput['sec_per_step']),
        'E2E Training Duration sec : ' + _number('%.0f', results['seconds']['total']),
        'Final Train Accuracy : ' + _number('%.4f', final['train_acc']),
    ]
    lines += [
        'Final {} Accuracy : {:.4f}'.format(split.capitalize(), final[split + '_acc'])
        for split in ('valid', 'test')
        if final.get(split + '_acc') is not None
    ]
    return lines


def case_log(results, suffix):
    """The lines of ${CaseName}.log, keys and order as everywhere in the zoo."""
    final, throughput = results['final'], results['throughput']
    step = throughput['sec_per_step']
    return [
        'Network = ' + NETWORK,
        f'RankSize = {_rank_size()}',
        f'BatchSize = {results["options"]["batch_size"]}',
        'DeviceType = ' + platform.machine(),
        'CaseName = ' + case_name(results, suffix),
        'ActualFPS = ' + _number('%.2f', throughput['images_per_sec']),
        'TrainingTime = '
        + _number('%.2f', step if step is None else 1000 * step),  # milliseconds per step
        'TrainAccuracy = ' + _number('%.4f', final['train_acc']),
        'ActualLoss = ' + _number('%.6f', final['train_loss']),
        'E2ETrainingTime = ' + _number('%.0f', results['seconds']['total']),
    ]


def _write(path, lines):
    with open(path + '.tmp', 'w', encoding='utf-8') as file:
        file.writelines(line + '\n' for line in lines)
    os.replace(path + '.tmp', path)


def report(run_dir, suffix):
    """Writes both files into the run directory. Returns the lines to print."""
    with open(os.path.join(run_dir, 'results.json'), encoding='utf-8') as file:
        results = json.load(file)
    with open(os.path.join(run_dir, 'history.jsonl'), encoding='utf-8') as file:
        losses = [_number('%.6f', json.loads(line)['train_loss']) for line in file]
    name = case_name(results, suffix)
    lines = block(results)
    _write(os.path.join(run_dir, name + '.log'), case_log(results, suffix))
    _write(os.path.join(run_dir, f'train_{name}_loss.txt'), losses)
    return lines


def main(arguments):
    try:
        print('\n'.join(report(options_module.parse(arguments[1:]).run_dir, arguments[0])))
    except (OSError, ValueError, KeyError) as error:
        print(
            f'final_result: expected a finished run. Received: {type(error).__name__}: {error}',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
