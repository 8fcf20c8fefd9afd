"""Runs the cells of a sweep: several at once, each a process of trainers.run."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any, Callable, Sequence

from gitloss import files
from gitloss.errors import log
from trainers import launch
from trainers.sweeping.grid import Cell, arguments

_STEP = re.compile(rb'step ([0-9]+)/[0-9]+ ')
TELL_EVERY = 60.0  # seconds between two lines of progress
_TAIL = 4096  # bytes at the end of a log that are read


def jobs_of(wanted: int) -> int:
    """Runs at once: `wanted`, or 0 for one for each GPU, else for each two cores; two on two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    return wanted or len(launch.gpus()) or max(min(2, cores or 1), (cores or 1) // 2)


def _tail(path: str) -> bytes:
    try:
        with files.open_regular(path, os.O_RDONLY, 'rb') as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return bytes(file.read())
    except OSError:
        return b''


def _saved_step(folder: str) -> int:
    """The step of the newest checkpoint of a run; 0 without one."""
    path = os.path.join(folder, 'ckpt')
    names = os.listdir(path) if os.path.isdir(path) else []
    found = [re.fullmatch(r'step-([0-9]+)', name) for name in names]
    return max((int(match[1]) for match in found if match), default=0)


def _in_words(seconds: float) -> str:
    minutes = int(seconds / 60 + 0.5)
    return f'{minutes // 60} h {minutes % 60:02d} min'


class Runner:
    """Runs cells.

    Args:
      cells: those to run, in their order.
      logs: an existing folder for the console output of each run, <name>.log.
      jobs: at once.
      ended: called with a cell and '' or the reason why it failed, when it has ended.
      work: the arguments of Python before the flags of a run.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        logs: str,
        jobs: int,
        ended: Callable[[Cell, str], Any],
        work: Sequence[str] = ('-m', 'trainers.run'),
    ) -> None:
        self._waiting, self._logs, self._ended, self._work = list(cells), logs, ended, work
        self._free, self._jobs, self._cards = list(range(jobs)), jobs, launch.cards(jobs)
        self._running: dict[int, tuple[Cell, Any]] = {}  # by place
        self._begun: dict[str, int] = {}  # step of each run when it began or went on
        self._done = self._failed = self._steps_done = 0
        self._signal = 0

    def run(self) -> int:
        """Returns 0, or the number of the signal that stopped it: the runs have then saved."""
        self._start, told = time.monotonic(), time.monotonic()
        before = {
            signum: signal.signal(signum, self._stop)
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(signum) != signal.SIG_IGN  # as under nohup
        }
        try:
            while self._waiting or self._running:
                has_ended = self._reap()
                while self._waiting and self._free:
                    self._begin(self._waiting.pop(0), self._free.pop(0))
                if has_ended or time.monotonic() - told > TELL_EVERY:
                    told = time.monotonic()
                    self._tell()
                time.sleep(0.1)
        finally:
            launch.end([(process, None) for _, process in self._running.values()])
            for signum, handler in before.items():
                signal.signal(signum, handler)
        return self._signal

    def _stop(self, signum: int, _: Any) -> None:
        self._signal, self._waiting = signum, []
        for _, process in self._running.values():
            process.send_signal(signum if signum == signal.SIGINT else signal.SIGTERM)

    def _log(self, cell: Cell) -> str:
        return os.path.join(self._logs, f'{cell.name}.log')

    def _begin(self, cell: Cell, place: int) -> None:
        environment = {launch.FIRST_HPARAMS: ','.join(cell.settings)}
        if self._cards:
            environment['CUDA_VISIBLE_DEVICES'] = self._cards[place]
        flags = [*self._work, *arguments(cell.options)]
        process = launch.spawn(flags, environment, self._log(cell))
        launch.pin(process, launch.cores_of(place, self._jobs))
        self._running[place] = (cell, process)
        self._begun[cell.name] = _saved_step(cell.options.run_dir)

    def _reap(self) -> bool:
        """Whether a run has ended."""
        ended = [place for place, (_, one) in self._running.items() if one.poll() is not None]
        for place in ended:
            cell, process = self._running.pop(place)
            launch.end([(process, None)])
            self._free.append(place)
            reason = '' if process.returncode == 0 else self._reason(cell, process.returncode)
            if reason and self._signal:  # stopped, not failed
                continue
            if reason:
                log.warning('%s: %s', cell.name, reason)
            self._failed, self._done = self._failed + bool(reason), self._done + (not reason)
            self._steps_done += 0 if reason else cell.options.steps - self._begun[cell.name]
            self._ended(cell, reason)
        return bool(ended)

    def _reason(self, cell: Cell, status: int) -> str:
        """The last line that a run said, or how it ended."""
        lines = _tail(self._log(cell)).decode('utf-8', 'replace').split('\n')
        last = next((line.strip() for line in reversed(lines) if line.strip()), '')
        if status < 0 or not last.startswith('trainers.run'):
            return f'ended with status {status if status >= 0 else 128 - status}; {last}'
        return last

    def _step(self, cell: Cell) -> int:
        """The steps that a running cell has done, by its log."""
        found = _STEP.findall(_tail(self._log(cell)))
        return int(found[-1]) if found else self._begun[cell.name]

    def _tell(self) -> None:
        line = f'finished {self._done}, running {len(self._running)}, to come {len(self._waiting)}'
        if self._failed:
            line += f', failed {self._failed}'
        running = [(cell, self._step(cell)) for cell, _ in self._running.values()]
        steps = self._steps_done + sum(step - self._begun[cell.name] for cell, step in running)
        left = sum(cell.options.steps - step for cell, step in running)
        left += sum(cell.options.steps for cell in self._waiting)
        if steps and left:
            line += f'; {_in_words((time.monotonic() - self._start) / steps * left)} left'
        log.info('%s', line)
