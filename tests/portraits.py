"""Small images drawn by code, and their files."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image

SHAPE = (12, 10, 3)
PEOPLE = ('ann', 'bo', 'cy', 'dee')


def drawn(identity, number=0, shape=SHAPE):
    """Pixels of image `number` of an identity: a blurred head of its colour, noise: uint8."""
    random, (height, width, channels) = np.random.RandomState([identity, number]), shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    head = np.exp(-2 * (rows**2 + columns**2))[..., None]
    colour = np.random.RandomState(identity).uniform(60, 230, channels)
    return np.clip(head * colour + random.uniform(0, 20, shape), 0, 255).astype(np.uint8)


def encoded(pixels, kind='PNG', **settings):
    """The bytes of an image file with these pixels, or of a Pillow image."""
    if isinstance(pixels, np.ndarray):
        pixels = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    content = io.BytesIO()
    pixels.save(content, kind, **settings)
    return content.getvalue()


def png(bits, colour_type, rows, extra=b'', size=(2, 1)):
    """A PNG file written by hand, also of kinds that Pillow does not write."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)

    header = struct.pack('>IIBBBBB', *size, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b''.join(b'\0' + row for row in rows))
    middle = chunk(b'IHDR', header) + extra + chunk(b'IDAT', pixels)
    return b'\x89PNG\r\n\x1a\n' + middle + chunk(b'IEND', b'')


def palette(alpha):
    """The chunks of a palette of two colours, the second with this alpha."""
    return b''.join(
        struct.pack('>I', len(content))
        + kind
        + content
        + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in ((b'PLTE', bytes(range(6))), (b'tRNS', bytes([255, alpha])))
    )


def write(folder, names, count=3, kind='png'):
    """Writes `count` images into a sub-folder for each of `names`. Returns `folder` as a text."""
    for identity, name in enumerate(names):
        os.makedirs(os.path.join(str(folder), name), exist_ok=True)
        for number in range(count):
            path = os.path.join(str(folder), name, f'{number}.{kind}')
            with open(path, 'wb') as file:
                file.write(encoded(drawn(identity, number)))
    return str(folder)


def identities(source):
    """{where an image of a source is: the name of its identity}."""
    names = [source.names[label] for label in source.labels]
    return dict(zip(map(source.where, range(len(source))), names))


def trained(folder):
    """(folder of the images of PEOPLE, folder of a run that can tell them apart)."""
    from trainers import run

    images, out = write(folder / 'faces', PEOPLE, 6), str(folder / 'run')
    flags = '--dataset=folder --image_size=16 --model=mnist_cnn --embedding_dim=4 --steps=60'
    flags += ' --batch_size=8 --update_centers=60 --noevaluate --device=cpu'
    paths = [f'--data_path={images}', f'--exp_save_dir={out}']
    assert run.main([*flags.split(), *paths]) == 0
    return images, out
