"""What the workers of a run do together: the group of a single worker, which is also the interface.

Workers act alike because they ask a group: it gathers values, sums gradients, and gives every
worker the variables and the decisions of the chief.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

from gitloss.backend import Tensor, tf
from trainers import subnormals


class OneWorker:
    """The group of a single worker. It adds no operations to the graph and no cost to a step."""

    rank, size, is_chief = 0, 1, True

    def all_gather(self, tensor: Tensor, sum_gradients: bool = False) -> Tensor:
        """[rows, ...] of this worker -> [size * rows, ...] of all workers, in the order of rank.

        Its gradient is this worker's rows of the incoming gradient. That is right where every
        worker computes the whole loss of the gathered rows and the gradients of the weights are
        summed afterwards. With `sum_gradients` the incoming gradients are summed over the workers
        first: for values on which the losses of all workers depend, such as the statistics of batch
        normalization.
        """
        return tensor

    def all_reduce(self, tensors: list[Tensor]) -> list[Tensor]:
        """The sums over the workers of tensors of one float type."""
        return tensors

    def build(self, variables: Sequence[Tensor]) -> None:
        """Creates the operations of the methods below. `variables`: those that replicas share."""

    def session(self, graph: Any, config: Any) -> Any:
        """Opens the tf.Session of this worker."""
        return tf.Session(graph=graph, config=config)

    def run(
        self,
        session: Any,
        fetches: Any,
        feeds: dict | None = None,
        requests: Sequence[int] = (0, 0),
        where: str = '',
    ) -> tuple[Any, Sequence[int]]:
        """A `session.run` that all workers make together.

        Args:
          requests: this worker's stop and save requests, two numbers from 0 on.
          where: the place in the run, for error lines, as "step 5".

        Returns:
          (values, element-wise maximum of the workers' requests).
        """
        with subnormals.as_zero():
            return session.run(fetches, feeds), requests

    def decide(self, session: Any, decision: Callable[[], Any]) -> Any:
        """What `decision()`, JSON values, returns on the chief.

        Raises:
          ValueError: `decision` raises it on the chief; every worker raises it then.
        """
        return decision()

    def broadcast_variables(self, session: Any) -> None:
        """Gives every worker the chief's values of all variables."""

    def check_replicas(self, session: Any, step: int) -> None:
        """Raises WorkerLost if the variables of two workers differ."""

    def finish(self, session: Any) -> None:
        """Waits for the other workers at the end: one may still read from this one."""

    def close(self, session: Any) -> None:
        """Closes the session, if there is one."""
        if session is not None:
            session.close()
