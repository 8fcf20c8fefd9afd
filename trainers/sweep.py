"""python -m trainers.sweep --flagfile=flags/paper.cfg: a training for each cell of a grid of flags.

Trains each combination of the values of --grid in a folder of its own below --exp_save_dir
(default: output/sweep), several at once, and writes tables and pictures of the results there. The
same command again skips the runs that are finished and continues those that are not. All flags of
trainers.run are taken, too, and are those of every run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Sequence

from gitloss import files
from gitloss.errors import Interrupted, check, log
from trainers import command, streams
from trainers.options import ROOT, Options, absolute, differing_flags
from trainers.options.sweeping import part_of
from trainers.sweeping import grid, overview, results, runner

_CELLS, _LOGS = 'runs', 'logs'


def _finished(cell: grid.Cell) -> dict[str, Any] | None:
    """The content of results.json of a run with these options that is finished; else None."""
    try:
        text = files.read(os.path.join(cell.options.run_dir, 'results.json')).decode()
        found = json.loads(text)
        saved, wanted = dict(found['options']), cell.options.as_dict()
        final = dict(found['final'])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    differs = differing_flags(saved, wanted) or saved.get('steps') != wanted['steps']
    return None if differs or 'step' not in final else found


def _has_ended(cell: grid.Cell) -> bool:
    """Whether a run whose results are there wrote all that comes after them: the report is last."""
    path = os.path.join(cell.options.run_dir, 'report.html')
    return not cell.options.evaluate or os.path.isfile(path)


class _Sweep:
    """The cells of a sweep, its folder and the failures so far."""

    def __init__(self, options: Options) -> None:
        default = os.path.join(ROOT, 'output', 'sweep')
        self.folder = absolute('exp_save_dir', options.exp_save_dir or default)
        self.cells = grid.cells(options, os.path.join(self.folder, _CELLS))
        self.failures: dict[str, str] = {}
        self._options = options
        self._contents: dict[str, Any] = {}  # of results.json of the finished cells, by name
        self._read(self.cells)
        self._baseline = overview.baseline(options.baseline, self.cells)

    def part(self) -> list[grid.Cell]:
        """The cells of --part that are to be run."""
        return [
            cell
            for cell in self._cells_of_part()
            if cell.name not in self._contents or not _has_ended(cell)
        ]

    def jobs(self) -> int:
        """Runs at once. What is finished does not change it: a run that goes on has as many cores
        as before, with which its numbers are the same to the last bit.
        """
        return min(runner.jobs_of(self._options.jobs), len(self._cells_of_part()) or 1)

    def _cells_of_part(self) -> list[grid.Cell]:
        number, count = part_of(self._options.part)
        return self.cells[number - 1 :: count]

    def _read(self, cells: Sequence[grid.Cell]) -> None:
        """Reads the results of those of the cells that are finished."""
        for cell in cells:
            content = _finished(cell)
            if content:
                self._contents[cell.name] = content

    def ended(self, cell: grid.Cell, reason: str) -> None:
        """Adds a run to the tables. The results of the others have been read."""
        if reason:
            self.failures[cell.name] = reason
        self._read([cell])
        self._write(with_pictures=False)

    def end(self, with_pictures: bool) -> list[results.CellResult]:
        """Writes tables and pictures of all cells, those of other parts included."""
        self._read([cell for cell in self.cells if cell.name not in self._contents])
        return self._write(with_pictures)

    def _write(self, with_pictures: bool) -> list[results.CellResult]:
        found = [self._result(cell) for cell in self.cells]
        overview.write(self.folder, found, self._baseline, with_pictures)
        return found

    def _result(self, cell: grid.Cell) -> results.CellResult:
        content, reason = self._contents.get(cell.name), self.failures.get(cell.name, '')
        status = results.FAILED if reason else results.UNFINISHED
        if content:
            status, reason = results.FINISHED, ''
        return results.CellResult(cell.settings, cell.options.run_dir, content, status, reason)


def sweep(options: Options) -> int:
    """Runs the cells and writes the tables. Returns the exit status."""
    work = _Sweep(options)
    logs = os.path.join(work.folder, _LOGS)
    os.makedirs(logs, exist_ok=True)
    check(os.access(work.folder, os.W_OK), '--exp_save_dir', 'a folder to write to', work.folder)
    todo, jobs = work.part(), work.jobs()
    log.info(
        '%d runs of %d steps, %d of them to do, %d at once, in %s',
        len(work.cells),
        work.cells[0].options.steps,
        len(todo),
        min(jobs, max(len(todo), 1)),
        work.folder,
    )
    signum = runner.Runner(todo, logs, jobs, work.ended).run()
    found = work.end(with_pictures=not signum)
    if signum:
        raise Interrupted(signum)
    with contextlib.suppress(OSError):
        streams.output(files.read(os.path.join(work.folder, 'summary.md')).decode())
    is_whole = all(cell.status == results.FINISHED for cell in found)
    return 0 if is_whole or (not work.failures and part_of(options.part)[1] > 1) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(
        arguments, 'trainers.sweep', __doc__ or '', sweep, is_light=lambda options: True
    )


if __name__ == '__main__':
    sys.exit(main())
