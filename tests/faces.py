"""Faces drawn by code: a small folder of coloured identities, and runs on it.

The same arguments give the same pixels on every machine. An identity has a skin colour and places
of eyes and mouth; its images differ by a shift, the light and noise.
"""

import os

import numpy as np
from PIL import Image

import toys


def name(identity):
    """The folder of an identity: sorted as the numbers are."""
    return f'person {identity:03d}'


def draw(identity, number, size=16, channels=3):
    """Image `number` of an identity: uint8 [size, size, channels]."""
    look, random = np.random.RandomState([7, identity]), np.random.RandomState([identity, number])
    skin, hair = look.randint(60, 220, (2, 3))
    eyes, mouth = look.randint(size // 4, size // 2), look.randint(size // 2, 3 * size // 4)
    gap = look.randint(size // 8, size // 3)
    image = np.zeros((size, size, 3))
    image[:], image[: eyes // 2] = skin, hair
    image[eyes : eyes + 2, [size // 2 - gap, size // 2 + gap]] = 255 - skin
    image[mouth : mouth + 2, size // 2 - gap : size // 2 + gap] = hair
    image = np.roll(image, random.randint(-1, 2, 2), (0, 1))
    image = image * random.uniform(0.9, 1.1) + random.normal(0, 6, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    return image if channels == 3 else image[..., 1:2]


def save(path, pixels):
    """Writes uint8 [height, width, 1 or 3] as the image file that the ending names."""
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(str(path))


def write(folder, identities=4, images=10, size=16, channels=3, ending='png'):
    """Writes `images` files for each of `identities`, numbers or a count; returns the folder as a
    string.

    `images`: a number, or the numbers of images of each identity.
    """
    numbers = range(identities) if isinstance(identities, int) else identities
    counts = [images] * len(numbers) if isinstance(images, int) else images
    for identity, count in zip(numbers, counts):
        for number in range(count):
            path = os.path.join(str(folder), name(identity), f'{number:03d}.{ending}')
            save(path, draw(identity, number, size, channels))
    return str(folder)


def options(folder, **changes):
    """Options of a toy run on faces below `folder`."""
    settings = {
        'dataset': 'folder',
        'data_path': os.path.join(str(folder), 'faces'),
        'image_size': '16',
    }
    settings.update(changes)
    if not os.path.isdir(settings['data_path']):
        write(settings['data_path'])
    return toys.options(folder, **settings)
