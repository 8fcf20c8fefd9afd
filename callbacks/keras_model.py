"""For Keras's own callbacks: a substitute for the Keras model, the attributes that a checkpoint
saves, and the callbacks that cannot work.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Sequence

from gitloss.backend import keras
from gitloss.errors import log

NUMBER = (int, float)
# Saved attributes of Keras's own callbacks, and their types. Some exist only in one version of
# TensorFlow.
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
# {kind of callback, or setting that must be off: reason}
_CANNOT = {
    'TensorBoard': 'it traces a Keras model; callbacks.tensorboard.TensorBoard writes the '
    'event files',
    'BackupAndRestore': 'it restores a Keras model; --resume and --save_every do that for the '
    'whole run',
    'ProgbarLogger': 'callbacks.progress.Progress draws the bar',
    'BaseLogger': 'it is part of Model.fit; the means are in the logs',
    'UpdateEmbeddingCallback': 'there is no DynamicEmbedding layer',
    'SidecarEvaluatorModelExport': 'it saves a Keras model',
    'restore_best_weights': 'restore_best_weights=True would not change any checkpoint; the best '
    'checkpoint by --best stays on the disk, and trainers.evaluate uses it',
    'load_weights_on_restart': 'load_weights_on_restart=True: use --resume to continue a run, or '
    '--init_checkpoint to start from weights',
}


def refusal(callback: Any, kinds: Sequence[str]) -> str | None:
    """Why a Keras callback cannot work here, or None.

    Args:
      callback: an object of tf.keras.callbacks.
      kinds: the names of its class and base classes that are Keras's own.
    """
    if 'RemoteMonitor' in kinds and importlib.util.find_spec('requests') is None:
        return 'the package requests is not installed'
    reasons = (
        reason
        for name, reason in _CANNOT.items()
        if name in kinds or getattr(callback, name, False)
    )
    return next(reasons, None)


class _Optimizer:
    """`lr` is the variable, for get_value and set_value. Assigning a number sets its value."""

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    @property
    def learning_rate(self) -> Any:
        return self._variable

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        keras.backend.set_value(self._variable, value)

    lr = learning_rate


class Model:
    """A substitute for the `model` of a Keras callback.

    Args:
      wrapped: the callback.
      kind: its name in log lines.
      handle: the run.

    Attributes:
      optimizer: has the variable of the learning rate as `lr` and `learning_rate`.
      metrics_now: the metrics of a checkpoint that is saved now.
    """

    _is_graph_network, distribute_strategy = True, None  # read by ModelCheckpoint

    def __init__(self, wrapped: Any, kind: str, handle: Any) -> None:
        self._wrapped, self._kind, self._handle, self._stop = wrapped, kind, handle, False
        self.optimizer = _Optimizer(handle.rate_variable)
        self.metrics_now: dict[str, float] = {}

    def _in_multi_worker_mode(self) -> bool:
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
        """Saves a checkpoint of this project as the folder `filepath`. A full disk is a warning."""
        try:
            self._handle.save_aside(filepath, self.metrics_now)
        except OSError as error:
            log.warning('%s: no checkpoint at step %d: %s', self._kind, self._handle.step, error)

    save_weights = save

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f'model.{name}: expected stop_training, optimizer.lr, save or save_weights, which is '
            'all that a Keras callback can use here; a callbacks.base.Callback can do more'
        )
