"""Event files for TensorBoard and the protocol buffers in them, made on the host.

Only TensorBoard's own message classes and checksum are used, which are the same in 1.15 and 2.x,
and the older of two forms of a summary, which both read. No TensorFlow, no operation in any graph.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from typing import Any, Container, Mapping, Sequence

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from gitloss.errors import log

Event, SessionLog, Value = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary.Value
FAILURE, SUCCESS = api_pb2.STATUS_FAILURE, api_pb2.STATUS_SUCCESS
_BINS = 40


class EventFile:
    """An event file without a buffer: a kill loses no event, and what a full disk refuses is tried
    again with the next event. TensorFlow's own writer, a thread, drops such events in silence
    (1.15) or ends with a traceback (2.x).

    TensorBoard reads the files of a folder in the order of their names, that is of the seconds in
    them. A new file gets a later one than all others, whatever the clock says.

    Args:
      folder: where the file is created.
      suffix: the end of its name.

    Attributes:
      path: of the file.
    """

    def __init__(self, folder: str, suffix: str = '') -> None:
        found = [re.match(r'events\.out\.tfevents\.(\d+)\.', name) for name in os.listdir(folder)]
        begun = max([int(time.time())] + [int(match.group(1)) + 1 for match in found if match])
        name = f'events.out.tfevents.{begun:010d}.{socket.gethostname()}{suffix}'
        self.path = os.path.join(folder, name)
        self._file: Any = None
        self._waiting, self._warned = b'', False
        self.write(file_version='brain.Event:2')

    def write(self, **fields: Any) -> None:
        """Appends an Event of these fields and the present time. The first failure is a warning."""
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

    def add(self, step: int, values: Sequence[Any]) -> None:
        """Appends summary Values of a step."""
        self.write(step=step, summary=summary_pb2.Summary(value=values))

    def _flush(self):
        if self._file is None:
            self._file = open(self.path, 'ab', buffering=0)
        while self._waiting:
            written = self._file.write(self._waiting)  # may be a part only
            self._waiting = self._waiting[written:]

    def close(self) -> None:
        """Raises OSError if the last events could not be written."""
        try:
            self._flush()
        finally:
            if self._file is not None:
                self._file.close()


def scalar(tag: str, value: Any) -> Any:
    """One point of a curve."""
    return Value(tag=tag, simple_value=value)


def histogram(tag: str, values: Any) -> Any:
    """Counts of the finite ones of `values`, float of any shape, in 40 bins of equal width.

    Raises:
      ValueError: no value is finite.
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


def image(tag: str, png: bytes) -> Any:
    """A picture from the bytes of a PNG file, whose header has the size."""
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


def text(tag: str, markdown: str) -> Any:
    """A text for the page Text."""
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, tensor_shape={}, string_val=[markdown.encode('utf-8')]
    )
    return Value(tag=tag, metadata=_metadata('text'), tensor=tensor)


def table(rows: Mapping[str, Any], names: Sequence[str] = ('name', 'value')) -> str:
    """A Markdown table of {name: value}. Nothing in a value can end its cell."""

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


def _column(name, value, is_first):
    kind = api_pb2.DATA_TYPE_STRING
    if isinstance(value, (int, float)):
        is_flag = isinstance(value, bool)
        kind = api_pb2.DATA_TYPE_BOOL if is_flag else api_pb2.DATA_TYPE_FLOAT64
    known = api_pb2.HParamInfo.DESCRIPTOR.fields_by_name
    more = {'differs': is_first} if 'differs' in known else {}
    return api_pb2.HParamInfo(name=name, type=kind, **more)


def hparams_experiment(
    settings: Mapping[str, Any], metrics: Mapping[str, str], first: Container[str] = ()
) -> Any:
    """Declares the columns of the page HParams.

    TensorBoard 2.x shows five settings, those that "differ" before the others; 1.15 has no such
    field and shows all.

    Args:
      settings: {name: plain value} of the hyperparameters.
      metrics: {tag of a scalar: heading}.
      first: names of settings to show first.
    """

    names = sorted(settings, key=lambda name: name not in first)
    return _hparams(
        'experiment',
        experiment=api_pb2.Experiment(
            time_created_secs=time.time(),
            hparam_infos=[_column(name, settings[name], name in first) for name in names],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
                for tag, name in metrics.items()
            ],
        ),
    )


def hparams_start(settings: Mapping[str, Any]) -> Any:
    """The start of a run with the settings {name: plain value}."""
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
    for name, value in settings.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, (int, float)):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    return _hparams('session_start_info', session_start_info=start)


def hparams_end(status: int) -> Any:
    """The end of a run: SUCCESS or FAILURE."""
    return _hparams(
        'session_end_info',
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time()),
    )
