"""Event files for TensorBoard, written on the host from values that were fetched anyway."""
from __future__ import annotations

from callbacks.base import Callback
from gitloss.backend import tf


class TensorBoard(Callback):
    """Scalars: `train/...` every `log_every` steps from the step's own logs, `valid/...`, `distance/...` at each measurement.

    Args:
      log_every: steps between two points of the training curves.
    """

    _GROUPS = (('train_', 'train/'), ('valid_', 'valid/'), ('test_', 'test/'), ('inter_', 'distance/inter_'),
               ('intra_', 'distance/intra_'))

    def __init__(self, log_every=20):
        self._log_every = log_every
        self._writer = None

    def _write(self, step, scalars):
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._writer.add_summary(tf.Summary(value=values), step)

    def _tag(self, name):
        for prefix, group in self._GROUPS:
            if name.startswith(prefix):
                return group + name[len(prefix):]
        return 'run/' + name

    def on_train_begin(self, logs=None):
        self._writer = tf.summary.FileWriter(self.handle.run_dir, flush_secs=10)
        self.on_rewind(self.handle.step)

    def on_rewind(self, step):
        # TensorBoard then drops what older files hold of later steps: a continued run draws one line.
        self._writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)

    def on_train_batch_end(self, batch, logs=None):
        if batch % self._log_every == 0:
            self._write(batch, {'train_batch/' + name: value for name, value in logs.items() if name != 'images_per_sec'})

    def on_epoch_end(self, epoch, logs=None):
        self._write(logs['step'], {self._tag(name): value for name, value in logs.items() if name != 'step'})
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._write(logs['step'], {self._tag(name): value for name, value in logs.items() if name.startswith('test_')})

    def close(self):
        if self._writer is not None:
            self._writer.close()
