"""Faces found by the package mtcnn (Zhang et al., 2016), in a process of its own.

Its networks are Keras models that run eagerly, and Keras rebuilds its classes for the one mode or
for the other: beside a network in a graph they break.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from gitloss.errors import check, reason

POINTS = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
_INSTALL = (
    'pip install "mtcnn>=1.0"'
    if sys.version_info >= (3, 10)
    # mtcnn 1.0 needs a newer Python. The dependencies of 0.1.1 would replace those of TensorFlow.
    else 'pip install --no-deps mtcnn==0.1.1 keras==2.3.1 opencv-python-headless==4.5.5.64'
)
_PROGRAM = 'from gitloss.data.detection import serve; serve()'


class FaceDetector:
    """The five points of the largest face of an image.

    The process starts at the first image and ends with this one.

    Raises:
      ValueError: the package is not installed.
    """

    def __init__(self) -> None:
        is_there = importlib.util.find_spec('mtcnn') is not None
        check(is_there, '--align', 'mtcnn to be installed', f'none; {_INSTALL}')
        self._process: Any = None
        self._lock = threading.Lock()

    def __call__(self, pixels: np.ndarray) -> np.ndarray | None:
        """The points in the order of POINTS, float64 [5, 2]: x, y in pixels. None: no face.

        Args:
          pixels: uint8 [height, width, 3].

        Raises:
          ValueError: the package fails.
        """
        with self._lock:
            self._process = self._process or self._start()
            try:
                pickle.dump(np.ascontiguousarray(pixels), self._process.stdin, protocol=4)
                self._process.stdin.flush()
                answer = pickle.load(self._process.stdout)  # noqa: S301 - from our own process
            except (OSError, EOFError):
                answer = f'its process ended with status {self._process.wait()}'
                self._process = None
        check(not isinstance(answer, str), '--align', 'that mtcnn works', answer)
        return answer

    @staticmethod
    def _start() -> Any:
        pipe, paths = subprocess.PIPE, os.pathsep.join(path or os.getcwd() for path in sys.path)
        return subprocess.Popen(
            [sys.executable, '-c', _PROGRAM],
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ, PYTHONPATH=paths),
            start_new_session=True,  # Ctrl-C is for the command alone
        )


def points_of_largest(faces: Any) -> np.ndarray | None:
    """The points of the face with the largest box, of what mtcnn returns."""
    if not faces:
        return None
    # The box is x, y, width, height.
    largest = max(faces, key=lambda face: face['box'][2] * face['box'][3])
    return np.array([largest['keypoints'][name] for name in POINTS], np.float64)


def serve() -> None:
    """The process: answers images from standard input until it is closed."""
    answers = os.fdopen(os.dup(1), 'wb')
    os.dup2(2, 1)  # libraries print
    detector = None
    while True:
        try:
            pixels = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
        except EOFError:
            return
        try:
            if detector is None:
                from mtcnn import MTCNN

                detector = MTCNN()
            answer: Any = points_of_largest(detector.detect_faces(pixels))
        except Exception as error:  # noqa: BLE001 - told where the command is
            answer = reason(error)
        pickle.dump(answer, answers, protocol=4)
        answers.flush()
