"""The pictures of a measurement, drawn once for all callbacks that write or show them."""

from __future__ import annotations

from typing import Any

from callbacks.base import Callback
from callbacks.centers import CenterMeasurement
from callbacks.evaluation import Evaluation
from gitloss.figures import confusion, encoding, plots
from gitloss.figures.view import View
from gitloss.metrics.declaration import accuracy


class Figures(Callback):
    """Draws the scatter plot and the confusion matrix of the latest measurement, each at the first
    request. In the list it comes before the callbacks that use it.

    The scatter plots of a run share a View, which is saved in checkpoints.

    Args:
      evaluation: has the embeddings, labels and predictions of the validation set.
      centers: has the class means of the training set.

    Attributes:
      title: of the latest measurement: its step, validation accuracy and distances.
    """

    chief_only = True

    def __init__(self, evaluation: Evaluation, centers: CenterMeasurement) -> None:
        self.evaluation, self.centers = evaluation, centers
        self.title = ''
        self._view = View()
        self._drawn: dict[str, bytes] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        metrics = [accuracy('valid')] + [metric for metric in self.centers.metrics if metric.label]
        values = [
            f'{metric.label} {logs[metric.name]:{metric.form or ".2f"}}'
            for metric in metrics
            if metric.name in logs
        ]
        self.title = '   '.join([f'step {logs["step"]}', *values])
        self._drawn = {}

    def scatter(self) -> bytes:
        """PNG of 720 x 640 pixels: validation embeddings, and the class means on their plane."""
        if 'scatter' not in self._drawn:
            evaluation = self.evaluation
            points, means, limit = self._view.project(evaluation.embeddings, self.centers.means)
            figure = plots.scatter(points, evaluation.labels, means, self.title, limit)
            self._drawn['scatter'] = encoding.png_bytes(figure)
        return self._drawn['scatter']

    def confusion(self) -> bytes:
        """PNG of the confusion matrix of the whole validation set.

        Raises:
          ValueError: more than 1000 classes.
        """
        if 'confusion' not in self._drawn:
            labels, predictions = self.evaluation.all_labels, self.evaluation.all_predictions
            figure = confusion.confusion_matrix(labels, predictions, self.handle.num_classes)
            self._drawn['confusion'] = encoding.png_bytes(figure)
        return self._drawn['confusion']

    def state(self) -> Any:
        return self._view.state()

    def load_state(self, state: Any) -> None:
        self._view.load_state(state)
