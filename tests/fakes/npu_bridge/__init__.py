"""A stand-in for CANN's `npu_bridge`, for tests on a machine without a card.

Module paths, names and signatures are the real ones; what the real package refuses, ignores in
silence or hangs on is refused here with NpuRefuses. Behind it computes an ordinary CPU session.
Tests put this folder on sys.path; the product never does.

    FAKE_NPU_RECORD=FILE      one JSON object a line: session configurations, and every set of
    fetches that was run
    FAKE_NPU_OVERFLOW=0,3     the numbers of the updates, from 0, in which the float status is to
    tell of an overflow
    FAKE_NPU_BROKEN=1         importing it fails as it does where the compiled library is missing
"""

import os

if os.environ.get('FAKE_NPU_BROKEN') == '1':
    raise ImportError('libge_runner.so: cannot open shared object file: No such file or directory')


class NpuRefuses(RuntimeError):
    """What ends in an error, a hang, or silently wrong numbers on the card."""
