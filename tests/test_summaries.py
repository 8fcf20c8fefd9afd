"""Records and histograms of event files, as TensorFlow's reader sees them."""

import numpy as np
import pytest

from callbacks import summaries
from gitloss.backend import tf


def test_a_histogram_of_equal_or_no_values():
    value = summaries.histogram('a', np.full(7, 3.0)).histo
    assert (value.min, value.max, value.num, sum(value.bucket)) == (3.0, 3.0, 7.0, 7.0)
    assert summaries.histogram('a', [1.0, np.nan, np.inf]).histo.num == 1.0
    with pytest.raises(ValueError, match='at least one finite value'):
        summaries.histogram('a', [np.nan])


def test_records_are_those_of_tensorflow(tmp_path):
    """The reader of TensorFlow checks length and checksums. Files created within one second have
    increasing names.
    """
    first, second, third = (
        summaries.EventFile(str(tmp_path), suffix) for suffix in ('', '.end', '')
    )
    first.add(7, [summaries.Value(tag='a', simple_value=0.5)])
    assert first.path < second.path < third.path and second.path.endswith('.end')
    events = list(tf.train.summary_iterator(first.path))
    assert events[0].file_version == 'brain.Event:2' and events[1].step == 7
    assert (events[1].summary.value[0].tag, events[1].summary.value[0].simple_value) == ('a', 0.5)
    # The check value of RFC 3720.
    assert (
        summaries.masked_crc32c(b'123456789')
        == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    )
