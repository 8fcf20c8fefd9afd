"""The options for the data: what is read, its splits and batches, and the conversion."""

from __future__ import annotations

import dataclasses
import functools
import re

from trainers.options.spec import option

_free = functools.partial(option, resume=True, hyperparameter=False)


# Options that a set in the format of MNIST has no use for.
OF_IMAGES = (
    'image_size',
    'channels',
    'min_images',
    'max_classes',
    'split',
    'valid_fraction',
    'test_fraction',
    'check_images',
    'max_broken',
)


@dataclasses.dataclass(frozen=True)
class Data:
    """The first part of Options."""

    dataset: str = option(
        'mnist',
        'Kind of data: mnist, or any other set in its format; folder, a folder of images for each '
        'identity; list, a file with a path and an identity a line; recordio, train.rec and '
        'train.idx of insightface; tfrecord, TFRecord shards of tf.train.Example.',
        'data',
        commands=('run', 'convert'),
    )
    data_path: str = option(
        '',
        'Folder or file of the data. mnist: a folder of IDX files, gzipped or raw, or a file '
        'mnist.npz; default: data/mnist in the project. Of a checkpoint trained on images, the '
        'default is their --data_path; export compares its files on the images of the run.',
        'data',
        commands=('run', 'evaluate', 'convert', 'embed', 'export'),
        resume=True,
        workers=True,
        hyperparameter=False,
    )
    sampler: str = option(
        'shuffled',
        'Batches: shuffled, every training image once per epoch; balanced, --images_per_identity '
        'images of each of batch_size / images_per_identity classes.',
        'data',
        choices=('shuffled', 'balanced'),
    )
    images_per_identity: int = option(
        4,
        'Images of each class in a batch of --sampler=balanced; a class with fewer repeats its '
        'own. It divides --batch_size.',
        'data',
        low=1,
        high=1 << 20,
    )
    augment: str = option(
        '',
        'Random changes of the training images, separated by commas and made in this order: flip '
        '(mirrors half of them), crop[:8] (shifts by up to 8 pixels, edges repeated), '
        'brightness[:0.2] (adds or subtracts up to 0.2 of 255), contrast[:0.2] (0.8 to 1.2 times), '
        'rotate[:15] (by up to 15 degrees), zoom[:0.1] (0.9 to 1.1 times as large).',
        'data',
    )
    augment_until: int = option(
        0,
        'Step after which training images stay as they are: the network ends on the images that '
        'it is for. 0: --augment until the end.',
        'data',
        low=0,
        high=10**9,
    )
    image_size: str = option(
        '112',
        'Size in pixels that images are resized to: height x width, as 112x96, or one number for '
        'both. This option and those below are for images: mnist refuses them.',
        'data',
        accepts=(
            re.compile('[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})?').fullmatch,
            'a number of pixels, as 112, or height x width, as 112x96',
        ),
    )
    channels: int = option(3, 'Channels of the images: 3, RGB; 1, grey.', 'data', choices=(1, 3))
    min_images: int = option(
        1, 'Leave out identities with fewer training images than this.', 'data', low=1
    )
    max_classes: int = option(
        0,
        'Train on this many identities at most, those with the most images. 0: on all.',
        'data',
        low=0,
    )
    split: str = option(
        'image',
        'Split into training, validation and test images: image, some images of each identity; '
        'identity, all images of some identities, which are then no classes; given, the '
        'sub-folders or files train, valid (or val) and test of --data_path.',
        'data',
        choices=('image', 'identity', 'given'),
    )
    valid_fraction: float = option(
        0.1,
        'Fraction of the images, or of the identities, for validation. 0: no validation.',
        'data',
        low=0.0,
        high=0.9,
    )
    test_fraction: float = option(
        0.1,
        'Fraction of the images, or of the identities, for the test. 0: no test.',
        'data',
        low=0.0,
        high=0.9,
    )
    check_images: bool = _free(
        True,
        'Before a new run, decode every image once, and look for equal images of two identities. '
        '--nocheck_images: a broken image ends the run when it is read.',
        'data',
    )
    max_broken: int = _free(
        0,
        'Number of broken images that are left out, and listed in broken.txt of the run. With '
        'more, the run does not start.',
        'data',
        commands=('run', 'convert'),
        low=0,
    )

    out_path: str = _free(
        '',
        'Folder for the shards. Without it nothing is written: --data_path is only checked.',
        'conversion',
        commands=('convert',),
    )
    shard_images: int = _free(
        4096,
        'Images per shard.',
        'conversion',
        commands=('convert',),
        low=1,
        high=10**6,
    )
    threads: int = _free(
        0,
        'Threads that read and decode. 0: one for each core. They do not affect what is written.',
        'conversion',
        commands=('convert',),
        low=0,
        high=1024,
    )
