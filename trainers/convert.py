"""python -m trainers.convert --dataset=folder --data_path=faces --out_path=shards: images of any
kind to TFRecord shards.

Writes the images of a folder, a list, a record file or other shards as TFRecord shards, with an
index beside each and a manifest with their SHA-256; --dataset=tfrecord reads them. Images stay
encoded as they are. Every one is decoded once, and broken ones are named. The same command
continues a conversion that was interrupted.

Without --out_path nothing is written: the images are decoded, or, if they are shards of a
conversion, compared with its manifest.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Sequence

from gitloss.errors import check, check_choice, log, one_line
from trainers import command, streams
from trainers.options import Options, absolute


def _compare(folder: str, threads: int) -> str:
    """Compares shards with their manifest."""
    from gitloss.data import integrity

    damaged = integrity.damaged_shards(folder, threads)
    for line in damaged[1:]:
        log.warning('%s', line)
    if damaged:
        raise ValueError(f'{damaged[0]} (the first of {len(damaged)} damaged shards)')
    return f'{folder}: all shards are as {os.path.join(folder, "manifest.json")} says'


def _counted(path: str, images: int, identities: int, broken: int) -> str:
    rest = f', {broken} broken ones left out' if broken else ''
    return f'{path}: {images} images of {identities} identities{rest}'


def _work(options: Options, kind: Any) -> str:
    """Does what the flags ask for. Returns the line to print."""
    from gitloss.data import conversion, integrity, tfrecord

    path, threads = options.data_path, options.threads
    is_manifest = os.path.isfile(os.path.join(path, tfrecord.MANIFEST))
    if not options.out_path and options.dataset == 'tfrecord' and is_manifest:
        return _compare(path, threads)
    source = kind.open(path, options.image_shape)
    if not options.out_path:
        broken = integrity.broken_images(source, threads)
        integrity.check_broken(broken, options.max_broken)
        return _counted(path, len(source) - len(broken), len(source.names), len(broken))
    folder = absolute('out_path', options.out_path)
    manifest = conversion.convert(source, folder, options.shard_images, options.max_broken, threads)
    return _counted(folder, manifest['images'], len(source.names), manifest['broken'])


def convert(options: Options) -> int:
    """Writes or checks shards, and prints one line. Returns the exit status."""
    from gitloss import data

    check_choice('--dataset', options.dataset, sorted(data.IMAGES))
    check(options.data_path, '--data_path', f'the images of --dataset={options.dataset}', 'none')
    streams.output(one_line(_work(options, data.IMAGES[options.dataset]), 5000))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(arguments, 'trainers.convert', str(__doc__), convert)


if __name__ == '__main__':
    sys.exit(main())
