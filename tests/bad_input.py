"""Hundreds of damaged or hostile inputs: each is rejected with one clear line, or read as what it
says.

    python tests/bad_input.py     tries all cases and prints a table of their outcomes

The cases are seeded; damage/ has one module for each kind of input. Each one runs in this process
under an alarm, so that a hang is a failure, and may write only below its own folder. No pickle is
ever loaded: each one offered here would create a file.
"""

import collections
import os
import sys
import tempfile

if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from damage import checkpoint_files, flag_files, idx, npz, resumed
from damage.cases import try_case

CASES = [
    case for kind in (idx, npz, flag_files, checkpoint_files, resumed) for case in kind.cases()
]
COLUMNS = ('refused', 'passed over', 'correct', 'wrong')


def outcomes():
    """({kind: {outcome: count}}, a line for each case that has not the expected one)."""
    table, wrong = collections.OrderedDict(), []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = try_case(case, folder)
            except Exception as error:  # noqa: BLE001 - counted and shown
                outcome = 'wrong'
                wrong.append(
                    f'{case.kind}: {case.name}: {type(error).__name__}: {str(error)[:300]}'
                )
        table.setdefault(case.kind, collections.Counter())[outcome] += 1
    return table, wrong


def main():
    """Prints a table of the outcomes. Exit status 1 if one is not the expected one."""
    table, wrong = outcomes()
    table['all'] = sum(table.values(), collections.Counter())
    print(
        '| kind | cases | refused in one line | passed over, the one before serves | read '
        'rightly | wrong |'
    )
    print('|---|---|---|---|---|---|')
    for kind, counts in table.items():
        numbers = [sum(counts.values())] + [counts[name] for name in COLUMNS]
        print(f'| {kind} | {" | ".join(map(str, numbers))} |')
    print('\n'.join(wrong))
    return 1 if wrong else 0


if __name__ == '__main__':
    sys.exit(main())
