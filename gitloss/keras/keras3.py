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

_version = getattr(keras, '__version__', 'none')
check(_version.startswith('3.'), 'gitloss.keras.keras3', 'Keras 3: pip install keras', _version)
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
        gradients = tape.gradient(loss, weights)
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer.apply(gradients, weights)
            return True
        if not optimizer.built:
            optimizer.build(weights)
        # A step that is not skipped counts as a good one, or is the last of so many that the scale
        # grows and the count begins again.
        good, scale = optimizer.step_counter + 0, optimizer.dynamic_scale + 0.0
        optimizer.apply(gradients, weights)
        return (optimizer.step_counter > good) | (optimizer.dynamic_scale > scale)
