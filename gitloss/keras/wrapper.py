"""What the `GitLossModel` of both Kerases has in common."""

from __future__ import annotations

from typing import Any

from gitloss.backend import Tensor, is_eager, tf
from gitloss.errors import check
from gitloss.keras import step

_METRICS = ('loss', 'center_loss', 'git_loss', 'git_floor')


class _Means:
    """The metrics of the steps. Keras 2 would count attributes of the model as weights."""

    def __init__(self, keras: Any) -> None:
        self.metrics = [keras.metrics.Mean(name=name) for name in _METRICS]


class GitLossWrapper:
    """A model of a network and a head whose `fit` adds the center and git terms and moves the
    centers.

    `model(images)` and `predict` give what the head gives; `model.network` gives the embeddings.
    The loss of `compile` is the softmax term. `fit`, `train_on_batch` and custom loops with
    `train_step` move the centers once per step; `evaluate` adds the terms to the loss and moves
    nothing. Sample and class weights act on the softmax term alone.

    Args:
      network: a model or layer from inputs to embeddings, float [batch, dim].
      num_classes: number of centers; the labels are integers below it.
      head: a layer or model from embeddings to what the loss of `compile` reads. None: a Dense
        layer with `num_classes` logits.
      lambda_c, lambda_g: weights of the center and git terms, >= 0.
      form: "elementwise" or "pairwise", see `gitloss.losses`.
      alpha: step size of the centers, in [0, 1].
      distance: "euclidean" or "cosine".
      embedding_dim: size of the embeddings; needed if the network has not been built.

    Attributes:
      centers: the variable, float32 [num_classes, dim], initially zero.
      center_updates: the variable with the number of samples that have moved each center, int32
        [num_classes].

    Raises:
      ValueError: an argument is out of range, the network is of another Keras, or this program
        has no TensorFlow 2 eager mode, without which `fit` has no steps of ours.
    """

    # Of the Keras: its module, its name, the strategies with which its `fit` works and replicas can
    # gather, and the arguments of variables that each replica has.
    _keras: Any
    _title: str
    _strategies: tuple[str, ...] = ('OneDeviceStrategy', 'MirroredStrategy')
    _mirrored: dict[str, Any]

    def __init__(
        self,
        network: Any,
        num_classes: int,
        head: Any = None,
        lambda_c: float = 1.0,
        lambda_g: float = 1.0,
        form: str = 'elementwise',
        alpha: float = 0.5,
        distance: str = 'euclidean',
        embedding_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        check(
            is_eager(),
            'GitLossModel',
            'TensorFlow 2 in eager mode',
            'its graph mode, see gitloss.losses for graphs',
        )
        step.check_strategy(self._strategies)
        check(num_classes >= 1, 'num_classes', 'at least 1', num_classes)
        self._check_layer('network', network)
        if head is None:  # in float32 also in mixed precision, as the loss needs it
            head = self._keras.layers.Dense(num_classes, name='logits', dtype='float32')
        self._check_layer('head', head)
        super().__init__(**kwargs)
        self.network, self.head, self.num_classes = network, head, num_classes
        self.terms = step.Terms(lambda_c, lambda_g, form, alpha, distance).checked()
        self.embedding_dim = _dimension_of(network, embedding_dim)
        shape = (num_classes, self.embedding_dim)
        self.centers = self._variable('centers', shape, 'float32')
        self.center_updates = self._variable('center_updates', shape[:1], 'int32')
        self._means = _Means(self._keras)
        shape_of_inputs = getattr(network, 'input_shape', None)
        if shape_of_inputs:
            self.build(shape_of_inputs)

    def _check_layer(self, name: str, layer: Any) -> None:
        kind = self._keras.layers.Layer
        received = f'{type(layer).__module__}.{type(layer).__name__}'
        check(isinstance(layer, kind), name, f'a model or layer of {self._title}', received)

    def _variable(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        return self.add_weight(  # type: ignore[attr-defined]
            name=name,
            shape=shape,
            dtype=dtype,
            initializer='zeros',
            trainable=False,
            **self._mirrored,
        )

    def build(self, input_shape: Any) -> None:
        """Builds the network and the head, so that weights can be loaded before the first call."""
        if not self.network.built:
            self.network.build(input_shape)
        if not self.head.built:
            self.head.build((None, self.embedding_dim))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, with_embeddings: bool = False) -> Any:
        """What the head gives; with_embeddings: (embeddings, that)."""
        embeddings = self.network(inputs, training=training)
        check(
            embeddings.shape[1:] == (self.embedding_dim,),
            'network',
            f'embeddings [batch, {self.embedding_dim}]',
            f'shape {tuple(embeddings.shape)}',
        )
        outputs = self.head(embeddings, training=training)
        return (embeddings, outputs) if with_embeddings else outputs

    def _forward(self, data: Any, training: bool) -> tuple[step.Batch, Tensor, tuple]:
        """(the terms, this replica's part of the whole loss, (x, y, outputs, sample weights))."""
        x, y, weights = self._keras.utils.unpack_x_y_sample_weight(data)
        embeddings, outputs = self(x, training=training, with_embeddings=True)  # type: ignore
        batch = self.terms.of(embeddings, y, self._tensor(self.centers))
        loss = self.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights)  # type: ignore
        part = self.terms.weighted(batch) / step.replicas()
        return batch, loss + tf.cast(part, loss.dtype), (x, y, outputs, weights)

    def _logs(self, batch: step.Batch, loss: Tensor, of_metrics: tuple) -> dict[str, Tensor]:
        """Updates the metrics. Returns their values, with the whole loss as `loss`."""
        size = tf.shape(batch.labels)[0] / step.replicas()
        whole = {'loss': loss * step.replicas(), **batch._asdict()}
        for mean in self._means.metrics:
            mean.update_state(whole[mean.name], sample_weight=size)
        # Keras's own `loss`, of the loss of `compile` alone, comes before and is replaced.
        return self.compute_metrics(*of_metrics)  # type: ignore[attr-defined]

    @property
    def metrics(self) -> list[Any]:
        return [*super().metrics, *self._means.metrics]  # type: ignore[misc]

    def train_step(self, data: Any) -> dict[str, Tensor]:
        """One step: gradients, weights, centers, metrics."""
        with tf.GradientTape() as tape:
            batch, loss, of_metrics = self._forward(data, training=True)
            scaled = self._scaled(loss)
        is_done = self._apply_gradients(tape, scaled)
        self.terms.move(
            batch, self._tensor(self.centers), self._tensor(self.center_updates), is_done
        )
        return self._logs(batch, loss, of_metrics)

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """The losses and metrics of a batch."""
        return self._logs(*self._forward(data, training=False))

    def get_config(self) -> dict[str, Any]:
        save = self._keras.saving.serialize_keras_object
        return dict(
            self.terms._asdict(),
            network=save(self.network),
            head=save(self.head),
            num_classes=self.num_classes,
            embedding_dim=self.embedding_dim,
            name=self.name,  # type: ignore[attr-defined]
        )

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        load = cls._keras.saving.deserialize_keras_object
        parts = {name: load(config[name], custom_objects) for name in ('network', 'head')}
        return cls(**dict(config, **parts))

    def _tensor(self, variable: Any) -> Any:
        """The tf.Variable of a variable."""
        return variable

    def _scaled(self, loss: Tensor) -> Tensor:
        """The loss as the optimizer scales it in mixed precision."""
        raise NotImplementedError

    def _apply_gradients(self, tape: tf.GradientTape, loss: Tensor) -> Any:
        """Updates the weights. Returns whether the optimizer did, a bool or a bool tensor."""
        raise NotImplementedError


def _dimension_of(network: Any, embedding_dim: int | None) -> int:
    """The size of the embeddings."""
    if embedding_dim is None:
        try:
            shape = tuple(network.output_shape)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            shape = ()
        known = len(shape) == 2 and isinstance(shape[1], int)
        received = f'outputs of shape {shape}' if shape else 'a network that has not been built'
        check(known, 'embedding_dim', 'a network with embeddings [batch, dim], or dim', received)
        embedding_dim = shape[1]
    return int(embedding_dim)
