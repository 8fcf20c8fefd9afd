"""The options for embeddings and for their verification."""

from __future__ import annotations

import dataclasses
import functools
import re

from trainers.options.spec import option

_free = functools.partial(option, resume=True, hyperparameter=False)
_embedding = functools.partial(_free, group='embeddings')
_recognition = functools.partial(_free, group='recognition')
_verification = functools.partial(_free, group='verification')


@dataclasses.dataclass(frozen=True)
class Judging:
    """The last part of Options."""

    pairs: str = _verification(
        '',
        'Pairs of images to verify: pairs.txt of LFW; a list of two images, 0 or 1 and perhaps a '
        'fold a line; a folder Protocol/Split/FF or FP of CFP; a .bin of insightface. Their '
        'figures are printed instead of losses and distances.',
        commands=('evaluate',),
    )
    embeddings: str = _verification(
        '',
        'Embeddings of the images of --pairs, instead of --ckpt_path: an .npz file with names '
        '(without extension) and embeddings.',
        commands=('evaluate',),
    )
    verify_pairs: str = _verification(
        '',
        'Pairs of images, as --pairs of trainers.evaluate, that each measurement verifies: '
        'verify_acc, verify_auc, verify_eer and verify_tar, for --best and --monitor.',
        workers=True,
    )
    pairs_path: str = _verification(
        '',
        'Folder of the images of the pairs. Default: the folder of the file; of CFP, that of '
        'Protocol.',
        commands=('run', 'evaluate'),
        workers=True,
    )
    similarity: str = _verification(
        'cosine',
        'Score of two embeddings: cosine, or the negative Euclidean distance. Of embeddings of '
        'unit length both give the same figures.',
        commands=('run', 'evaluate', 'predict'),
        choices=('cosine', 'euclidean'),
    )
    far: float = _verification(
        1e-3,
        'False accept rate for which a threshold is calibrated.',
        commands=('run', 'evaluate'),
        low=1e-9,
        high=1.0,
    )
    report_path: str = _verification(
        '',
        'Folder for the tables and pictures of --pairs.',
        commands=('evaluate',),
    )
    out: str = _embedding(
        '',
        'File to write the embeddings to: .npz, .parquet (needs pyarrow) or .tfrecord.',
        commands=('embed',),
        required=('embed',),
    )
    flip: bool = _embedding(
        False,
        'Average the embeddings of each image and its mirror image.',
        commands=('embed', 'predict'),
    )
    align: bool = _embedding(
        False,
        'Cut the largest face out of each image and align it, for photographs. Needs the package '
        'mtcnn.',
        commands=('embed', 'predict'),
    )
    gallery: str = _recognition(
        '',
        'Enrolled people: an .npz file, as enroll or trainers.embed writes it.',
        commands=('predict',),
    )
    neighbors: int = _recognition(
        5,
        'Nearest images of the gallery that are printed.',
        commands=('predict',),
        low=1,
        high=10**6,
    )
    calibration: str = _recognition(
        '',
        'A verification.json of trainers.evaluate --report_path, whose threshold decides.',
        commands=('predict',),
    )
    threshold: str = _recognition(
        '',
        'The least score of two images of one person, instead of --calibration.',
        commands=('predict',),
        accepts=(
            re.compile(r'(-?[0-9]{1,9}(\.[0-9]{1,17})?)?').fullmatch,
            'a number, as 0.35',
        ),
    )
