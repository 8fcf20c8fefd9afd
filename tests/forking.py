"""Processes of Python that begin with TensorFlow imported: forks of a server that has imported it.

Importing takes most of the seconds of a test that starts a process. What is forked is the same
program in a process of its own: it can be killed, stopped and waited for as any other. Tests of the
start-up and of variables that TensorFlow reads when it is imported start a `subprocess` instead.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_POLL = 0.01


class Server:
    """The process that forks, one for each process of tests. It ends with it."""

    _started, _lock = None, threading.Lock()

    def __init__(self):
        # The threads of OpenBLAS would be missing in a fork.
        environment = dict(os.environ, PYTHONPATH=ROOT, OPENBLAS_NUM_THREADS='1')
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__)],
            cwd=ROOT,
            env=environment,
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,
        )
        self._answered, self._pid, self._statuses = threading.Event(), 0, {}
        threading.Thread(target=self._listen, daemon=True).start()
        atexit.register(self._process.stdin.close)

    @classmethod
    def get(cls):
        with cls._lock:
            cls._started = cls._started or cls()
            return cls._started

    def _listen(self):
        for line in self._process.stdout:
            answer = json.loads(line)
            if 'status' in answer:
                self._statuses[answer['pid']] = answer['status']
            else:
                self._statuses.pop(answer['pid'], None)  # of an earlier process of that number
                self._pid = answer['pid']
                self._answered.set()

    def fork(self, **request):
        """The pid of a new process."""
        with self._lock:
            self._answered.clear()
            self._process.stdin.write(json.dumps(request).encode() + b'\n')
            self._process.stdin.flush()
            assert self._answered.wait(120), 'the server of forks does not answer'
            return self._pid

    def status(self, pid):
        """The exit status, -n for signal n; None while it runs."""
        return self._statuses.get(pid)


class Process:
    """As subprocess.Popen of `python ARGUMENTS`, without input.

    Args:
      arguments: PROGRAM ..., -m MODULE ... or -c CODE ...
      output, errors: paths of files to write; None: os.devnull, and the same as the output.
      environment: all variables; PYTHONPATH takes effect.
      cwd: the working folder.
    """

    def __init__(self, arguments, output=None, errors=None, environment=None, cwd=ROOT):
        output = str(output or os.devnull)
        self.args, self._server = arguments, Server.get()
        self.pid = self._server.fork(
            arguments=list(map(str, arguments)),
            output=output,
            errors=str(errors or output),
            environment=dict(os.environ if environment is None else environment),
            cwd=str(cwd),
        )

    @property
    def returncode(self):
        return self.poll()

    def poll(self):
        return self._server.status(self.pid)

    def wait(self, timeout=None):
        limit = time.monotonic() + (1e9 if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > limit:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_POLL / 4)
        return self.poll()

    def send_signal(self, signum):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(arguments, folder, environment=None, timeout=400, cwd=ROOT):
    """subprocess.CompletedProcess of a process, its output read from files in `folder`."""
    output, errors = (os.path.join(str(folder), name) for name in ('forked.out', 'forked.err'))
    process = Process(arguments, output, errors, environment, cwd)
    try:
        process.wait(timeout)
    finally:
        process.kill()
    texts = []
    for path in (output, errors):
        with open(path, encoding='utf-8', errors='replace') as file:
            texts.append(file.read())
    return subprocess.CompletedProcess(arguments, process.returncode, *texts)


def _redirect(output, errors):
    create = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for path, descriptors, flags in (
        (os.devnull, (0,), os.O_RDONLY),
        (output, (1, 2), create | os.O_TRUNC),
        (errors, (2,), create),
    ):
        descriptor = os.open(path, flags, 0o666)
        for number in descriptors:
            os.dup2(descriptor, number)
        os.close(descriptor)


def _become(request):
    """In the fork: what the interpreter does with a command line."""
    os.setsid()
    _redirect(request['output'], request['errors'])
    os.environ.clear()
    os.environ.update(request['environment'])
    os.chdir(request['cwd'])
    program, *rest = request['arguments']
    paths = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    is_file = program.endswith('.py')
    sys.path[:1] = [os.path.dirname(program) if is_file else ROOT, *paths]
    if is_file:
        sys.argv = [program, *rest]
        runpy.run_path(program, run_name='__main__')
    elif program == '-m':
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv = ['-c', *rest[1:]]
        exec(compile(rest[0], '<string>', 'exec'), {'__name__': '__main__'})  # noqa: S102


def _answer(**fields):
    os.write(1, json.dumps(fields).encode() + b'\n')


def _import_all():
    """TensorFlow takes most of the time, then Matplotlib. What is here now stays: the garbage
    collectors of the forks need not look at it.
    """
    import toys  # noqa: F401 - and the network of toy runs
    from gitloss.figures import encoding, plots
    from trainers import callback_list  # noqa: F401 - which imports all but the commands

    encoding.png_bytes(plots.curves({'loss': ([1, 2], [1.0, 2.0])}, '', ''))
    gc.collect()
    gc.freeze()


def _serve():
    """Forks for each line of standard input until it is closed."""
    _import_all()
    children = set()
    while True:
        if select.select([0], [], [], _POLL)[0]:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            pid = os.fork()
            if not pid:
                _become(json.loads(line))
                return
            children.add(pid)
            _answer(pid=pid)
        for pid in sorted(children):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                children.remove(pid)
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                _answer(pid=pid, status=code)


if __name__ == '__main__':
    _serve()
