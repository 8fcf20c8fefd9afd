"""How hard, and in which directions, the terms of the loss move the embeddings."""

from __future__ import annotations

import itertools
import math
from typing import Any, Mapping

from callbacks.base import Callback
from gitloss.metrics import Metric

_TERMS = ('softmax', 'center', 'git')  # the order of rows and columns of the products
_FETCH = 'gradient_products'
NORMS = tuple(Metric(f'gradient_{term}', f'gradient norm, {term}', 'gradients') for term in _TERMS)
COSINES = tuple(
    Metric(f'cosine_{one}_{other}', f'cosine, {one} and {other}', 'gradients')
    for one, other in itertools.combinations(_TERMS, 2)
)


def norms_and_cosines(products: Any) -> dict[str, float]:
    """{name: value} of the scalar products of the gradients, float [3, 3].

    A gradient of length 0 or one that is not finite has no entry, and no angle.
    """
    values, lengths = {}, {}
    for place, metric in enumerate(NORMS):
        if 0 < products[place][place] < math.inf:
            values[metric.name] = lengths[place] = math.sqrt(products[place][place])
    for (one, other), metric in zip(itertools.combinations(range(3), 2), COSINES):
        if one in lengths and other in lengths:
            cosine = float(products[one][other]) / (lengths[one] * lengths[other])
            values[metric.name] = min(max(cosine, -1.0), 1.0)  # outside by rounding
    return values


class Gradients(Callback):
    """Measures the gradients of the weighted terms L_S, lambda_c L_C and lambda_g L_G with respect
    to the embeddings of the global batch, in every step.

    Logs, of a step and as means over the steps since the last measurement: `gradient_softmax`,
    `gradient_center`, `gradient_git`, the Euclidean norms of these [batch, dim] numbers, and
    `cosine_softmax_center`, `cosine_softmax_git`, `cosine_center_git`, of the angles between them.
    A term of weight 0 has no gradient and is left out. Nothing is logged while no variable before
    the embeddings is trained.

    With --iterations_per_loop the last step of each call counts.
    """

    metrics = (*NORMS, *COSINES)

    def __init__(self) -> None:
        self._sums: dict[str, list] = {}  # {name: [sum, number of steps]}

    def fetches(self, step: int) -> Mapping[str, Any]:
        products = self.handle.net.gradient_products
        return {} if products is None else {_FETCH: products}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if _FETCH not in logs:
            return
        values = norms_and_cosines(logs.pop(_FETCH))
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = [total + value, count + 1]
        logs.update(values)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({name: total / count for name, (total, count) in self._sums.items()})
        self._sums = {}

    def state(self) -> Any:
        return dict(self._sums)  # a copy: the measurement may still be aborted

    def load_state(self, state: Any) -> None:
        known = {metric.name for metric in self.metrics}
        self._sums = {
            name: [float(total), int(count)]
            for name, (total, count) in state.items()
            if name in known and count > 0
        }
