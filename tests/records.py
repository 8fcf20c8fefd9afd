"""Writers of record files, independent of the readers: RecordIO of MXNet, and
TFRecord by TensorFlow.
"""

import os
import struct

from gitloss.backend import tf
from portraits import drawn, encoded

MAGIC = struct.pack('<I', 0xCED7230A)


def frame(content, flag=0):
    """A frame of RecordIO."""
    return MAGIC + struct.pack('<I', flag << 29 | len(content)) + content + bytes(-len(content) % 4)


def record(label, image, number=0, flag=0):
    """A record with one label in its header, or several, as a list, behind it."""
    several = label if isinstance(label, list) else []
    head = struct.pack('<IfQQ', flag or len(several), 0 if several else label, number, 0)
    return head + struct.pack(f'<{len(several)}f', *several) + image


def frames(content):
    """A record as MXNet frames it: in parts, if it has the magic number at a multiple of 4."""
    cuts = [at for at in range(0, len(content) - 3, 4) if content[at : at + 4] == MAGIC]
    starts, ends = [0] + [at + 4 for at in cuts], cuts + [len(content)]
    flags = [1] + [2] * (len(cuts) - 1) + [3] if cuts else [0]
    return b''.join(frame(content[a:b], flag) for a, b, flag in zip(starts, ends, flags))


def write_recordio(folder, records, name='train'):
    """Writes records {key: bytes} and their index into a folder; returns its name."""
    lines, content = [], b''
    for key, each in records.items():
        lines.append(f'{key}\t{len(content)}\n')
        content += frames(each)
    os.makedirs(str(folder), exist_ok=True)
    for ending, text in (('rec', content), ('idx', ''.join(lines).encode())):
        with open(os.path.join(str(folder), f'{name}.{ending}'), 'wb') as file:
            file.write(text)
    return str(folder)


def faces(labels, header=True):
    """Records as insightface writes them: a header, an image for each label, and, after them, a
    record for each identity.
    """
    first = int(header)
    images = [
        record([label, 0.0] if number % 2 else label, encoded(drawn(label, number)), number)
        for number, label in enumerate(labels)
    ]
    found = dict(enumerate(images, first))
    if header:
        count = len(labels) + 1
        people = [record([1.0, float(count)], b'') for _ in set(labels)]
        head = {0: record([float(count), float(count + len(people))], b'')}
        found = {**head, **found, **dict(enumerate(people, count))}
    return found


def write_tfrecord(path, images):
    """Writes a shard with TensorFlow's own writer: a dictionary of features for each image."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for features in images:
            writer.write(serialised(features))
    return path


def serialised(features):
    """A tf.train.Example of bytes, whole numbers and floats."""
    example = tf.train.Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        kind = {bytes: 'bytes_list', int: 'int64_list', float: 'float_list'}[type(value)]
        getattr(feature, kind).value.append(value)
    return example.SerializeToString(deterministic=True)


def example(label, number=0, text=None, **others):
    """The features of a drawn image; None leaves one out."""
    features = {
        'image/encoded': encoded(drawn(label or 0, number)),
        'image/class/label': label,
        'image/class/text': text and text.encode(),
        **others,
    }
    return {name: value for name, value in features.items() if value is not None}
