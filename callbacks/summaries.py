"""Event files for TensorBoard and their protocol buffers, without TensorFlow operations.

They use TensorBoard's message classes and checksum, which are the same in 1.15 and 2.x, and of
scalars, histograms and images the older of two formats, which both versions read.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from typing import Any, Callable, Iterable, Mapping, Sequence

import numpy as np
from google.protobuf import struct_pb2
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.text.summary_v2 import text_pb

from gitloss.errors import log

Event, SessionLog, Value = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary.Value
FAILURE, SUCCESS = api_pb2.STATUS_FAILURE, api_pb2.STATUS_SUCCESS
_BINS = 40
_TYPES = {  # of settings, by the field of their protobuf Value
    'bool_value': api_pb2.DATA_TYPE_BOOL,
    'number_value': api_pb2.DATA_TYPE_FLOAT64,
    'string_value': api_pb2.DATA_TYPE_STRING,
}


class EventFile:
    """An unbuffered event file: a killed process loses no event, and after a failed write the next
    event tries again. TensorFlow's writer, a thread, drops such events silently (1.15) or ends with
    a traceback (2.x).

    TensorBoard reads the files of a folder in the order of their names, which contain the second of
    their creation. A new file is always the last, whatever the clock says.

    Args:
      folder: the folder of the file.
      suffix: the last part of its name.
      check: called before the file is created, which may be at a later event.
    """

    def __init__(
        self, folder: str, suffix: str = '', check: Callable[[], Any] = lambda: None
    ) -> None:
        matches = [
            re.match(r'events\.out\.tfevents\.([0-9]+)\.', name) for name in os.listdir(folder)
        ]
        second = max([int(time.time())] + [int(match.group(1)) + 1 for match in matches if match])
        self.path = os.path.join(
            folder, f'events.out.tfevents.{second:010d}.{socket.gethostname()}{suffix}'
        )
        self._file: Any = None
        self._check = check
        self._waiting, self._warned = b'', False
        self.write(file_version='brain.Event:2')

    def write(self, **fields: Any) -> None:
        """Appends an Event with these fields and the current time. An OSError is one warning."""
        data = Event(wall_time=time.time(), **fields).SerializeToString()
        for part in (struct.pack('<Q', len(data)), data):
            self._waiting += part + struct.pack('<I', masked_crc32c(part))
        try:
            self._flush()
        except OSError as error:
            if not self._warned:
                log.warning(
                    'the event file could not be written: %s; the next event tries again', error
                )
            self._warned = True

    def add(self, step: int, values: Iterable[Any]) -> None:
        """Appends summary Values of a step."""
        self.write(step=step, summary=summary_pb2.Summary(value=values))

    def _flush(self) -> None:
        if self._file is None:
            self._check()
            self._file = open(self.path, 'ab', buffering=0)
        while self._waiting:  # a full disk can cut a write short
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def close(self) -> None:
        """Closes the file. Raises OSError if the last events cannot be written."""
        try:
            self._flush()
        finally:
            if self._file is not None:
                self._file.close()


def histogram(tag: str, values: Any) -> Any:
    """A summary Value with counts of the finite values (any shape) in 40 bins of equal width.

    Raises:
      ValueError: there is no finite value.
    """
    values = np.asarray(values, np.float64)[np.isfinite(values)]
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
    """A summary Value of a picture, from the bytes of its PNG file."""
    width, height = struct.unpack('>II', png[16:24])
    return Value(
        tag=tag,
        image=summary_pb2.Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=png
        ),
    )


def _cell(value: Any) -> str:
    content = ' '.join(str(value).split()).replace('|', '&#124;').replace('`', '&#96;')
    return content and f'<code>{content.replace("<", "&lt;")}</code>'


def table(tag: str, rows: Mapping[str, Any]) -> Any:
    """A summary Value of a text: a Markdown table of {name: value}, in which values are escaped."""
    lines = [f'| {name} | {_cell(value)} |' for name, value in rows.items()]
    return text_pb(tag, '\n'.join(['| name | value |', '|---|---|', *lines])).value[0]


def _hparams(tag: str, **fields: Any) -> Any:
    # TensorBoard 1.15 has no such tensor of its own, and 2.x expects one.
    empty = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape={'dim': [{'size': 0}]})
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**fields))
    return Value(tag=tag, metadata=about, tensor=empty)


def _struct(settings: Mapping[str, Any]) -> Any:
    values = struct_pb2.Struct()
    values.update(
        {name: v if isinstance(v, (int, float)) else str(v) for name, v in settings.items()}
    )
    return values


def hparams_columns(
    settings: Mapping[str, Any], metrics: Mapping[str, str], first: Sequence[str] = ()
) -> Any:
    """A summary Value that declares the columns of the hyperparameter table.

    TensorBoard 2.x shows five settings, those that "differ" before the others. 1.15 does not have
    this field and shows all.

    Args:
      settings: {name: plain value}.
      metrics: {tag of a scalar: its heading}.
      first: names of the settings to show first.
    """
    values = _struct(settings)
    infos = [
        api_pb2.HParamInfo(name=name, type=_TYPES[values.fields[name].WhichOneof('kind')])
        for name in sorted(settings, key=lambda name: name not in first)
    ]
    if 'differs' in api_pb2.HParamInfo.DESCRIPTOR.fields_by_name:
        for info in infos:
            info.differs = info.name in first
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=infos,
        metric_infos=[
            api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
            for tag, name in metrics.items()
        ],
    )
    return _hparams(metadata.EXPERIMENT_TAG, experiment=experiment)


def hparams_start(settings: Mapping[str, Any]) -> Any:
    """The start of a run with these settings."""
    start = plugin_data_pb2.SessionStartInfo(
        hparams=_struct(settings).fields, start_time_secs=time.time()
    )
    return _hparams(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def hparams_end(status: Any) -> Any:
    """The end of a run with status SUCCESS or FAILURE."""
    return _hparams(
        metadata.SESSION_END_INFO_TAG,
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time()),
    )
