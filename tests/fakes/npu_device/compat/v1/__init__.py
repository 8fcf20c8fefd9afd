"""The modules of the fake npu_bridge under the names that they have on TensorFlow 2."""

import os

import npu_bridge
from npu_bridge import NpuRefuses  # noqa: F401

__path__ = [os.path.dirname(npu_bridge.__file__)]
