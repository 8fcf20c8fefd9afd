"""`GitLossModel` for Keras 2, the package tf_keras."""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, keras, tf
from gitloss.errors import check
from gitloss.keras.wrapper import GitLossWrapper

check(
    not tf.__version__.startswith('1.'),
    'gitloss.keras',
    'TensorFlow 2',
    f'{tf.__version__}, where gitloss.losses and the trainer serve',
)


@keras.saving.register_keras_serializable('gitloss')
class GitLossModel(GitLossWrapper, keras.Model):
    __doc__ = GitLossWrapper.__doc__

    _keras = keras
    _title = 'tf_keras'
    _strategies = (
        *GitLossWrapper._strategies,
        'MultiWorkerMirroredStrategy',
        'CollectiveAllReduceStrategy',  # its name within TensorFlow
    )
    _mirrored = {
        'aggregation': tf.VariableAggregation.ONLY_FIRST_REPLICA,
        'experimental_autocast': False,
    }

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss  # `minimize` scales it

    def _apply_gradients(self, tape: tf.GradientTape, loss: Tensor) -> Any:
        optimizer = self.optimizer
        scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)
        if not (scaled and optimizer.dynamic):
            optimizer.minimize(loss, self.trainable_variables, tape=tape)
            return True
        # `iterations` counts skipped steps too. A step that is not skipped counts as a good one, or
        # is the last of so many that the scale grows and the count begins again.
        good, scale = optimizer.dynamic_counter + 0, optimizer.loss_scale + 0.0
        optimizer.minimize(loss, self.trainable_variables, tape=tape)
        return (optimizer.dynamic_counter > good) | (optimizer.loss_scale > scale)
