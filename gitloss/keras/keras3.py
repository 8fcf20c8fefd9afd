"""`GitLossModel` for Keras 3 on its tensorflow backend."""

from __future__ import annotations

from typing import Any

try:
    import keras
except ImportError:
    keras = None

from gitloss.backend import Tensor, tf
from gitloss.errors import check
from gitloss.keras.wrapper import GitLossWrapper

version = getattr(keras, '__version__', 'none')
check(version.startswith('3.'), 'gitloss.keras.keras3', 'Keras 3: pip install keras', version)
check(
    keras.backend.backend() == 'tensorflow',
    'gitloss.keras.keras3',
    'Keras with KERAS_BACKEND=tensorflow',
    keras.backend.backend(),
)


@keras.saving.register_keras_serializable('gitloss')
class GitLossModel(GitLossWrapper, keras.Model):
    __doc__ = GitLossWrapper.__doc__

    _keras = keras
    _title = 'Keras 3'
    _mirrored = {'aggregation': 'only_first_replica', 'autocast': False}

    def _tensor(self, variable: Any) -> Any:
        return variable.value

    def _scaled(self, loss: Tensor) -> Tensor:
        return self.optimizer.scale_loss(loss)

    def _apply_gradients(self, tape: tf.GradientTape, loss: Tensor) -> Any:
        optimizer, weights = self.optimizer, self.trainable_weights
        before = optimizer.iterations.value + 0
        optimizer.apply(tape.gradient(loss, weights), weights)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return optimizer.iterations.value > before  # a skipped step does not count
        return True
