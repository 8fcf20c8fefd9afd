"""What Keras's own callbacks find in place of a Keras model, what of them a checkpoint keeps, and
which of them are refused.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Sequence

from gitloss.backend import keras
from gitloss.errors import log

NUMBER = (int, float)
# What a checkpoint keeps of stock callbacks: attributes and their types. Some exist on one
# TensorFlow only.
STATE: dict[str, dict[str, Any]] = {
    'EarlyStopping': dict.fromkeys(('wait', 'best', 'best_epoch', 'stopped_epoch'), NUMBER),
    'ReduceLROnPlateau': dict.fromkeys(('wait', 'best', 'cooldown_counter'), NUMBER),
    'ModelCheckpoint': dict.fromkeys(
        (
            'best',
            'epochs_since_last_save',
            '_current_epoch',
            '_last_batch_seen',
            '_batches_seen_since_last_saving',
            '_samples_seen_since_last_saving',
        ),
        NUMBER,
    ),
    'CSVLogger': {'keys': list},
    'History': {'epoch': list, 'history': dict},
}
_CANNOT = {
    'TensorBoard': 'it wants a Keras model to trace; callbacks.tensorboard.TensorBoard writes the '
    'event files',
    'BackupAndRestore': 'it restores a Keras model; --resume and --save_every do that for the '
    'whole run',
    'ProgbarLogger': 'callbacks.progress.Progress draws the bar',
    'BaseLogger': 'it is for the loop inside Model.fit; the means are in the logs',
    'UpdateEmbeddingCallback': 'there is no DynamicEmbedding layer',
    'SidecarEvaluatorModelExport': 'it saves a Keras model',
}


def refusal(callback: Any, kinds: Sequence[str]) -> str | None:
    """Why a Keras callback cannot work here, or None.

    Args:
      callback: an object of tf.keras.callbacks.
      kinds: the names of its class and of its base classes that are Keras's own.
    """
    for name in kinds:
        if name in _CANNOT:
            return _CANNOT[name]
    if 'EarlyStopping' in kinds and callback.restore_best_weights:
        return (
            'restore_best_weights=True would put weights back into no checkpoint; the best one by '
            '--best is kept on the disk, and trainers.evaluate takes it'
        )
    if 'ModelCheckpoint' in kinds and callback.load_weights_on_restart:
        return (
            'load_weights_on_restart=True: --resume continues a run, --init_checkpoint starts one '
            'from weights'
        )
    if 'RemoteMonitor' in kinds and importlib.util.find_spec('requests') is None:
        return 'the package requests is not installed'
    return None


class _Optimizer:
    """`lr` is the variable itself, for get_value and set_value. Assigning a number sets it."""

    def __init__(self, variable):
        self._variable = variable

    @property
    def learning_rate(self):
        return self._variable

    @learning_rate.setter
    def learning_rate(self, value):
        keras.backend.set_value(self._variable, value)

    lr = learning_rate


class Model:
    """Stands in for the `model` of a Keras callback.

    Args:
      wrapped: the callback.
      kind: its name in log lines.
      handle: the run.

    Attributes:
      optimizer: has the variable of the learning rate as `lr` and `learning_rate`.
      metrics_now: the values that a checkpoint saved now is judged by.
    """

    _is_graph_network, distribute_strategy = True, None  # ModelCheckpoint reads them

    def __init__(self, wrapped: Any, kind: str, handle: Any) -> None:
        self._wrapped, self._kind, self._handle, self._stop = wrapped, kind, handle, False
        self.optimizer = _Optimizer(handle.rate_variable)
        self.metrics_now: dict[str, float] = {}

    def _in_multi_worker_mode(self):
        return False

    @property
    def stop_training(self) -> bool:
        return self._stop

    @stop_training.setter
    def stop_training(self, value: Any) -> None:
        if value and not self._stop:
            best = getattr(self._wrapped, 'best', None)
            self._handle.stop(
                self._kind + ('' if best is None else f', best {self._wrapped.monitor} {best:g}')
            )
        self._stop = bool(value)

    def save(self, filepath: str, overwrite: bool = True, **_: Any) -> None:
        """Saves a checkpoint of ours as the folder `filepath`. A full disk costs this checkpoint,
        not the training.
        """
        try:
            self._handle.save_aside(filepath, self.metrics_now)
        except OSError as error:
            log.warning('%s: no checkpoint at step %d: %s', self._kind, self._handle.step, error)

    save_weights = save

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f'model.{name}: expected stop_training, optimizer.lr, save or save_weights, which is '
            'all that callbacks of Keras find here; one of callbacks.base.Callback can do more'
        )
