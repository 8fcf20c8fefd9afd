"""What TensorBoard reads, made on the host: event files and the protocol buffers in them.

Only TensorBoard's own message classes and checksum are used, which are the same in 1.15 and 2.x,
and of two forms of a summary the older
one: both read it. No TensorFlow, no operation in any graph.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from gitloss.errors import log

Event, SessionLog, Value = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary.Value
FAILURE, SUCCESS = api_pb2.STATUS_FAILURE, api_pb2.STATUS_SUCCESS
_BINS = 40


class EventFile:
    """An event file that is written at once: nothing waits in a buffer for a kill to lose, and what
    a full disk refuses is tried again with the next event. TensorFlow's own writer, a thread, drops
    it without a word (1.15) or ends with a traceback (2.x).

    TensorBoard reads the files of a folder by their names, that is by the second they were begun. A
    new one's is later than all others', whatever the clock says.

    Args:
      folder: where the file is made.
      suffix: what its name ends with.
    """

    def __init__(self, folder, suffix=''):
        found = [re.match(r'events\.out\.tfevents\.(\d+)\.', name) for name in os.listdir(folder)]
        begun = max([int(time.time())] + [int(match.group(1)) + 1 for match in found if match])
        self.path = os.path.join(
            folder, 'events.out.tfevents.%010d.%s%s' % (begun, socket.gethostname(), suffix)
        )
        self._file, self._waiting, self._warned = None, b'', False
        self.write(file_version='brain.Event:2')

    def write(self, **fields):
        """Appends an Event of these fields, at the time of now. A disk that refuses is warned of
        once.
        """
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        size = struct.pack('<Q', len(data))
        self._waiting += b''.join(
            (
                size,
                struct.pack('<I', masked_crc32c(size)),
                data,
                struct.pack('<I', masked_crc32c(data)),
            )
        )
        try:
            self._flush()
        except OSError as error:
            if not self._warned:
                log.warning(
                    'the event file could not be written: %s; the next event tries again', error
                )
            self._warned = True

    def add(self, step, values):
        """Appends summary Values of a step."""
        self.write(step=step, summary=summary_pb2.Summary(value=values))

    def _flush(self):
        if self._file is None:
            self._file = open(self.path, 'ab', buffering=0)
        while self._waiting:
            self._waiting = self._waiting[
                self._file.write(self._waiting) :
            ]  # what was cut short goes on where it was

    def close(self):
        """Raises OSError if the last events could not be written."""
        try:
            self._flush()
        finally:
            if self._file is not None:
                self._file.close()


def scalar(tag, value):
    return Value(tag=tag, simple_value=value)


def histogram(tag, values):
    """Counts of finite values (any shape) in 40 bins of one width between the smallest and the
    largest.
    """
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        raise ValueError(f'{tag}: expected at least one finite value. Received: none')
    counts, edges = np.histogram(values, _BINS)
    return Value(
        tag=tag,
        histo=summary_pb2.HistogramProto(
            min=values.min(),
            max=values.max(),
            num=len(values),
            sum=values.sum(),
            sum_squares=np.sum(values**2),
            bucket_limit=edges[1:],
            bucket=counts,
        ),
    )


def image(tag, png):
    """A picture from the bytes of its PNG file, whose header says the size."""
    width, height = struct.unpack('>II', png[16:24])
    return Value(
        tag=tag,
        image=summary_pb2.Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=png
        ),
    )


def _metadata(plugin, content=b''):
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    )


def text(tag, markdown):
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, tensor_shape={}, string_val=[markdown.encode('utf-8')]
    )
    return Value(tag=tag, metadata=_metadata('text'), tensor=tensor)


def table(rows, names=('name', 'value')):
    """Markdown of {name: value}; nothing in a value can end its cell."""

    def cell(value):
        value = ' '.join(str(value).split()).replace('|', '&#124;').replace('`', '&#96;')
        return '' if value == '' else '<code>{}</code>'.format(value.replace('<', '&lt;'))

    lines = ['| {} |'.format(' | '.join(names)), '|---|---|'] + [
        f'| {name} | {cell(value)} |' for name, value in rows.items()
    ]
    return '\n'.join(lines)


def _hparams(tag, **fields):
    content = plugin_data_pb2.HParamsPluginData(version=0, **fields).SerializeToString()
    empty = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={'dim': [{'size': 0}]})
    return Value(tag='_hparams_/' + tag, metadata=_metadata('hparams', content), tensor=empty)


def hparams_experiment(settings, metrics, first=()):
    """Declares the columns: `settings` {name: plain value}, those of `first` first; `metrics` {tag
    of a scalar: its heading}.

    TensorBoard 2.x shows five settings, those that "differ" before the others; 1.15 has no such
    field and shows all.
    """

    def info(name, value):
        kind = (
            api_pb2.DATA_TYPE_BOOL
            if isinstance(value, bool)
            else (
                api_pb2.DATA_TYPE_FLOAT64
                if isinstance(value, (int, float))
                else api_pb2.DATA_TYPE_STRING
            )
        )
        more = (
            {'differs': name in first}
            if 'differs' in api_pb2.HParamInfo.DESCRIPTOR.fields_by_name
            else {}
        )
        return api_pb2.HParamInfo(name=name, type=kind, **more)

    names = sorted(settings, key=lambda name: name not in first)
    return _hparams(
        'experiment',
        experiment=api_pb2.Experiment(
            time_created_secs=time.time(),
            hparam_infos=[info(name, settings[name]) for name in names],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
                for tag, name in metrics.items()
            ],
        ),
    )


def hparams_start(settings):
    """A run begins with these settings."""
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    return _hparams('session_start_info', session_start_info=start)


def hparams_end(status):
    """A run ends, SUCCESS or FAILURE."""
    return _hparams(
        'session_end_info',
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time()),
    )
