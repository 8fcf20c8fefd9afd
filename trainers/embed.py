"""python -m trainers.embed --ckpt_path=output/0 --data_path=faces --out=faces.npz: the embeddings
of images.

Embeds the images of a folder of folders, a list, a record file or TFRecord shards with the network
of a checkpoint, or with an exported model: --ckpt_path=output/0/export/gitloss.onnx. The file has
the names of the images (paths without extension), their embeddings and their identities; its ending
chooses the format: .npz, .parquet or .tfrecord.

Finished parts lie in OUT.parts until all are there: the same command continues an interrupted one.
Several processes with the same flags, on one machine or on several that share the folder, share the
parts among them.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Sequence

import numpy as np

from gitloss.data.alignment import aligner
from gitloss.data.embedding_formats import Table, check_format, write_embeddings
from gitloss.data.texts import Texts
from gitloss.errors import check, log, one_line
from trainers import command, streams
from trainers.options import Options, absolute
from trainers.parts import Parts


def open_source(path: str, image_shape: tuple[int, ...]) -> Any:
    """The images at `path`, of the kind that it is: an ImageSource.

    Raises:
      ValueError: there are no images, or they are refused.
    """
    from gitloss import data

    check(os.path.exists(path), '--data_path', 'images', one_line(path, 500) or 'none')
    names, kinds = [path], ['tfrecord', 'recordio', 'list']
    if os.path.isdir(path):
        names, kinds = os.listdir(path), ['tfrecord', 'recordio']
    found = [kind for kind in kinds if any(n.endswith(data.IMAGES[kind].endings) for n in names)]
    return data.IMAGES[found[0] if found else 'folder'].open(path, image_shape)


def _embed_parts(options: Options, network: Any, source: Any, parts: Parts) -> None:
    """Embeds the parts that nobody else does."""
    with network.open() as embedder:
        for number in parts.claimed():
            start, stop = parts.range_of(number)
            swept = embedder.sweep(source, start, stop, options.flip)
            rows = np.concatenate([part.combined(options.normalize) for part in swept])
            parts.write(number, rows)
            log.info('%d of %d images', stop, len(source))


def _gather(path: str, source: Any, dim: int, parts: Parts) -> None:
    names = Texts(map(source.name, range(len(source))))
    table = Table(names, source.names, source.labels, dim, parts.read)
    write_embeddings(path, table)
    parts.remove()


def _work(options: Options, network: Any) -> str:
    """Does what the flags ask for. Returns the line to print."""
    path = absolute('out', options.out)
    check(not os.path.isdir(path), '--out', 'the name of a file', f'a folder: {path}')
    source = open_source(options.data_path, network.image_shape)
    source.align = aligner() if options.align else None
    facts = {
        'checkpoint': network.facts,
        'images': source.fingerprint,
        'flip': options.flip,
        'normalize': options.normalize,
        'align': options.align,
    }
    parts = Parts(path + '.parts', facts, len(source))
    _embed_parts(options, network, source, parts)
    with parts.gathering() as are_there:
        if not (are_there and parts.are_complete):
            return f'{path}: another process has the rest'
        _gather(path, source, network.dim, parts)
    return f'{path}: {len(source)} embeddings of {len(source.names)} identities'


def embed(options: Options) -> int:
    """Writes the file of embeddings. Returns the exit status."""
    from trainers import embedders

    check_format(options.out)
    work = functools.partial(_work, options)
    line = embedders.using(options, 'embed', options.batch_size, work)
    streams.output(one_line(line, 5000))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(arguments, 'trainers.embed', __doc__ or '', embed)


if __name__ == '__main__':
    sys.exit(main())
