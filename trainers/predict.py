"""python -m trainers.predict --ckpt_path=output/faces IMAGE ...: who is in an image?

Prints one JSON object a line. --ckpt_path may also be an exported model, as gitloss.onnx, which has
no centers.

  IMAGE ...               class and confidence, the nearest center of a class and its distance; with
                          --gallery the nearest images there
  enroll NAME IMAGE ...   adds images of a person to --gallery, without training; `enroll FOLDER`
                          adds a folder of people
  identify IMAGE ...      the enrolled person whose image is most alike; null if the score is below
                          the threshold
  verify A B              whether two images are of one person

The threshold is that of --calibration, a verification.json of trainers.evaluate, or --threshold.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Iterator, Sequence

import numpy as np

from gitloss import files
from gitloss.data.alignment import FaceAligner, aligner
from gitloss.data.gallery import enrolled, read_gallery
from gitloss.errors import check, one_line, reason
from gitloss.metrics.neighbors import Gallery
from gitloss.metrics.verification import pair_scores
from trainers import command, streams
from trainers.options import Options, absolute

_VERBS = ('enroll', 'identify', 'verify')


def threshold_of(options: Options) -> tuple[float | None, float | None]:
    """(threshold, the FAR at which it was calibrated): of --threshold, or of --calibration.

    Raises:
      ValueError: the file is no calibration, or one of another similarity.
    """
    if options.threshold:
        return float(options.threshold), None
    if not options.calibration:
        return None, None
    shown = one_line(options.calibration, 5000)
    expected = 'a verification.json of trainers.evaluate --report_path'
    try:
        content = json.loads(files.read(options.calibration, 1 << 26).decode())
        figures = content['flip' if options.flip else 'plain']['calibration']
        found = float(figures['threshold']), float(figures['far'])
        similarity = content['similarity']
    except (ValueError, KeyError, TypeError) as error:
        check(False, shown, expected, reason(error))
    check(similarity == options.similarity, shown, f'one of {options.similarity}', similarity)
    return found


class Predictor:
    """A network, its classes and centers, and the gallery.

    Args:
      options: of the command.
      network: a trainers.embedders.Network.
      embedder: its Embedder.
      threshold: see `threshold_of`.
      align: cuts the face out of an image; None: whole images.
    """

    def __init__(
        self,
        options: Options,
        network: Any,
        embedder: Any,
        threshold: tuple[float | None, float | None],
        align: FaceAligner | None,
    ) -> None:
        self._options, self._embedder = options, embedder
        self._align = align
        facts = dict(network.facts, **{'align': True} if options.align else {})
        self._key = json.dumps(facts, sort_keys=True)
        self._classes, self._centers_of = network.classes, network.centers
        self._threshold, self._far = threshold
        path = options.gallery
        is_there = path and os.path.isfile(path)
        self._gallery = read_gallery(path, self._key) if is_there else None
        self._index = self._gallery and Gallery(self._gallery.embeddings, options.similarity)

    def _source(self, paths: Sequence[str]) -> Any:
        from gitloss.data.folder import FileSource
        from gitloss.data.texts import Labels, Texts

        labels = Labels()
        for _ in paths:
            labels.append('')
        return self._aligned(FileSource('', '', Texts(paths), labels, self._embedder.image_shape))

    def _aligned(self, source: Any) -> Any:
        source.align = self._align
        return source

    def _embeddings(self, source: Any) -> np.ndarray:
        return self._embedder.embed(source, self._options.flip).combined()

    def _name(self, label: int) -> str:
        return self._classes[label] if label < len(self._classes) else str(label)

    def _neighbours(self, rows: np.ndarray) -> Iterator[list[dict[str, Any]]]:
        """The nearest images in the gallery of each embedding."""
        gallery, index = self._gallery, self._index
        assert gallery is not None and index is not None
        people, k = gallery.people, min(self._options.neighbors, len(gallery.names))
        for places, scores in index.search(rows, k):
            for row, values in zip(places, scores):
                yield [
                    {'image': gallery.names[i], 'person': people[i], 'score': float(score)}
                    for i, score in zip(row, values)
                ]

    def _nearest_center(self, centers: np.ndarray | None, row: np.ndarray) -> dict[str, Any]:
        """An exported model has no centers."""
        if centers is None:
            return {}
        distances = np.linalg.norm(centers - row, axis=1)
        return {
            'nearest_center': self._name(int(distances.argmin())),
            'center_distance': float(distances.min()),
        }

    def classify(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Class, confidence and nearest center of each image."""
        source, centers = self._source(paths), self._centers_of()
        for start in range(0, len(paths), self._embedder.batch_size):
            chosen = np.arange(start, min(start + self._embedder.batch_size, len(paths)))
            values = self._embedder.values(['embeddings', 'logits'], source.images(chosen))
            rows, logits = (np.asarray(value, np.float64) for value in values)
            near = self._neighbours(rows) if self._gallery else iter(())
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            confidences = powers / powers.sum(axis=1, keepdims=True)
            for place, row, confidence in zip(chosen, rows, confidences):
                found = {
                    'image': paths[place],
                    'class': self._name(int(confidence.argmax())),
                    'confidence': float(confidence.max()),
                    **self._nearest_center(centers, row),
                }
                yield dict(found, neighbours=next(near)) if self._gallery else found

    def enroll(self, words: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Adds the images of a person, or of a folder of people, to the gallery."""
        path = self._options.gallery
        check(path, '--gallery', 'a file to enrol people in', 'none')
        if len(words) == 1:
            from gitloss.data.folder import open_folder

            source = self._aligned(open_folder(words[0], self._embedder.image_shape))
            names = [source.name(index) for index in range(len(source))]
        else:
            check(len(words) > 1 and words[0], 'enroll', 'NAME IMAGE ... or FOLDER', 'no images')
            source = self._source(words[1:])
            stems = (os.path.splitext(os.path.basename(path))[0] for path in words[1:])
            names = [f'{words[0]}/{stem}' for stem in stems]
            received = f'{len(names) - len(set(names))} that have the name of another'
            check(len(set(names)) == len(names), 'enroll', 'images of different names', received)
        gallery = enrolled(absolute('gallery', path), self._key, names, self._embeddings(source))
        yield {
            'gallery': path,
            'enrolled': len(names),
            'images': len(gallery.names),
            'people': len(set(gallery.people)),
        }

    def identify(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The enrolled person of each image."""
        shown = one_line(self._options.gallery, 500) or 'none'
        check(self._gallery, '--gallery', 'a file with enrolled people', shown)
        for path, near in zip(paths, self._neighbours(self._embeddings(self._source(paths)))):
            is_known = self._threshold is None or near[0]['score'] >= self._threshold
            yield {
                'image': path,
                'person': near[0]['person'] if is_known else None,
                'score': near[0]['score'],
                'threshold': self._threshold,
                'neighbours': near,
            }

    def verify(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Whether two images are of one person; null without a threshold."""
        check(len(paths) == 2, 'verify', 'two images', len(paths))
        rows = self._embeddings(self._source(paths))
        score = float(pair_scores(rows[:1], rows[1:], self._options.similarity)[0])
        yield {
            'images': list(paths),
            'score': score,
            'same': None if self._threshold is None else score >= self._threshold,
            'threshold': self._threshold,
            'far': self._far,
        }


def predict(options: Options, words: Sequence[str]) -> int:
    """Prints one JSON object a line. Returns the exit status."""
    from trainers import embedders

    verb = words[0] if words and words[0] in _VERBS else 'classify'
    rest = list(words[1:] if words and words[0] in _VERBS else words)
    check(rest, 'arguments', 'images', 'none')
    # A mistake is told before the network is built.
    threshold, align = threshold_of(options), aligner() if options.align else None
    # A single image is not padded to a whole batch. `enroll FOLDER` may have any number.
    size = options.batch_size if verb == 'enroll' else min(options.batch_size, len(rest))

    def work(network: embedders.Network) -> list[dict[str, Any]]:
        with network.open() as embedder:
            predictor = Predictor(options, network, embedder, threshold, align)
            return list(getattr(predictor, verb)(rest))

    is_named = verb == 'classify'
    for result in embedders.using(options, 'predict', size, work, classifier=is_named):
        streams.output(json.dumps(result))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    words: list[str] = []
    return command.main(
        arguments,
        'trainers.predict',
        __doc__ or '',
        lambda options: predict(options, words),
        words=words,
    )


if __name__ == '__main__':
    sys.exit(main())
