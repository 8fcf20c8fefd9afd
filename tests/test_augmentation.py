"""--augment: what each kind does to the pixels, against NumPy in float64."""

import numpy as np
import pytest

from gitloss.backend import tf
from gitloss.data import augmentation
from helpers import graph_session

ROWS, SEED = 16, 3
# Rows of the draws of each kind: two per kind, in the order of the table.
DRAWS = {'flip': 0, 'crop': 2, 'brightness': 4, 'contrast': 6, 'rotate': 8, 'zoom': 10}


def augmented(text, images, steps=(0,), rows=slice(None)):
    """[(augmented images, draws)] of the steps; `images` is the part `rows` of a global batch."""
    batch = ROWS if rows != slice(None) else len(images)
    with graph_session() as session:
        step = tf.placeholder(tf.int64, [])
        pixels = tf.constant(images)
        found = augmentation.augmented(pixels, augmentation.parse(text), SEED, step, rows, batch)
        assert found.dtype == tf.uint8 and found.shape == pixels.shape
        draws = tf.random.stateless_uniform(
            [12, batch], tf.stack([tf.constant(SEED, tf.int64), step])
        )
        return [session.run([found, draws], {step: number}) for number in steps]


def noise(count=ROWS, height=9, width=7, channels=3):
    """Bytes of all values."""
    return (
        np.random.RandomState(0).randint(0, 256, [count, height, width, channels]).astype(np.uint8)
    )


def test_flip_mirrors_half_of_the_images():
    """From left to right, not upside down. 640 fair coins: 0.4 to 0.6 is five sigma."""
    images, mirrored = noise(), []
    for found, draws in augmented('flip', images, range(40)):
        for image, original, draw in zip(found, images, draws[DRAWS['flip']]):
            np.testing.assert_array_equal(image, original[:, ::-1] if draw < 0.5 else original)
            mirrored.append((image != original).any())
    assert 0.4 < np.mean(mirrored) < 0.6


def test_a_crop_is_a_window_of_the_padded_image_and_all_places_are_reached():
    """Every pixel of a 10 x 9 image is another one, so that pixel (5, 4) of the window says where
    it lies in the image padded by 3. With 49 places none is missed in 3200 draws but for 49 times
    in e^65.
    """
    images = np.tile(np.arange(90, dtype=np.uint8).reshape(1, 10, 9, 1), (ROWS, 1, 1, 2))
    padded = np.pad(images[0], ((3, 3), (3, 3), (0, 0)), 'edge')
    reached = set()
    for found, _ in augmented('crop:3', images, range(200)):
        for window in found:
            row, column = divmod(int(window[5, 4, 0]), 9)
            top, left = row - 5 + 3, column - 4 + 3
            np.testing.assert_array_equal(window, padded[top : top + 10, left : left + 9])
            reached.add((top, left))
    assert reached == {(top, left) for top in range(7) for left in range(7)}


def test_crop_reads_its_number_of_pixels():
    """The default is 8: shifts beyond 6 do come."""
    images = np.tile(np.arange(400).reshape(1, 20, 20, 1) // 20, (ROWS, 1, 1, 1)).astype(np.uint8)
    shifts = {
        int(window[10, 0, 0]) - 10
        for found, _ in augmented('crop', images, range(40))
        for window in found
    }
    assert shifts == set(range(-8, 9))


def reference(kind, images, draws, amount):
    """In float64, before rounding."""
    shift = amount * (2.0 * draws[DRAWS[kind]].astype(np.float64)[:, None, None, None] - 1.0)
    pixels = images.astype(np.float64)
    if kind == 'brightness':
        return np.clip(pixels + 255.0 * shift, 0.0, 255.0)
    mean = pixels.mean((1, 2), keepdims=True)
    return np.clip((pixels - mean) * (1.0 + shift) + mean, 0.0, 255.0)


@pytest.mark.parametrize('kind', ['brightness', 'contrast'])
@pytest.mark.parametrize('given, amount', [('', 0.2), (':0.5', 0.5), (':1', 1.0)])
def test_brightness_and_contrast_are_those_of_numpy(kind, given, amount):
    """The nearest level; float32 may choose the other one of two that are as near: 1/2 and the
    error of some roundings at 255, 2^-16 each.
    """
    images, changed = noise(), 0
    for found, draws in augmented(kind + given, images, range(5)):
        exact = reference(kind, images, draws, amount)
        assert np.abs(found - exact).max() <= 0.5 + 1e-4
        changed += (found != images).sum()
    assert changed > images.size


def test_brightness_goes_both_ways_as_far_as_it_may():
    """Grey 128: of 320 draws from -51 to 51 the extremes are within 10 levels of the ends."""
    images = np.full([ROWS, 2, 2, 1], 128, np.uint8)
    found = np.array([image for image, _ in augmented('brightness', images, range(20))], int)
    assert 128 - 51 <= found.min() < 128 - 41 and 128 + 41 < found.max() <= 128 + 51


@pytest.mark.parametrize('side', [5, 3000])
def test_the_mean_of_contrast_is_exact(side):
    """An image of one colour stays as it is. 3000^2 * 255 exceeds int32, and float32 sums are not
    exact beyond 2^24.
    """
    images = np.tile(np.array([3, 255, 77], np.uint8), (1, side, side, 1))
    for found, draws in augmented('contrast:1', images):
        np.testing.assert_array_equal(found, images)
        assert abs(draws[DRAWS['contrast'], 0] - 0.5) > 0.1  # the factor is not 1


def interpolated(image, places):
    """Bilinear interpolation in float64 at `places` [2, height, width], or at the edge."""
    limits = np.array(image.shape[:2])[:, None, None] - 1.0
    places = np.clip(places, 0.0, limits)
    low = np.floor(places).astype(int)
    high = np.minimum(low + 1, limits.astype(int))
    (y, x), total = (places - low)[..., None], 0.0
    for row, by_row in ((low[0], 1 - y), (high[0], y)):
        for column, by_column in ((low[1], 1 - x), (high[1], x)):
            total = total + by_row * by_column * image[row, column]
    return total


@pytest.mark.parametrize('given', ['rotate:30', 'rotate:180', 'zoom:0.3', 'zoom:0.75'])
def test_rotate_and_zoom_are_those_of_numpy(given):
    """257 steps from -amount to amount. Places are rounded to 2^-8 pixel, on each of two axes by
    less than that, and the pixels differ by at most 255: less than 2 levels, and 1/2 by rounding.
    """
    kind, amount = given.split(':')
    images, changed = noise(), 0
    center = (np.array(images.shape[1:3]) - 1.0)[:, None, None] / 2
    grid = np.stack(np.mgrid[: images.shape[1], : images.shape[2]]) - center
    for found, draws in augmented(given, images, range(3)):
        for image, original, draw in zip(found, images, draws[DRAWS[kind]]):
            drawn = float(amount) * (np.floor(draw * 257) / 128 - 1)
            cos, sin = np.cos(np.radians(drawn)), np.sin(np.radians(drawn))
            turn = [[cos, sin], [-sin, cos]] if kind == 'rotate' else np.eye(2) / (1 + drawn)
            exact = interpolated(original.astype(float), np.tensordot(turn, grid, 1) + center)
            assert np.abs(image - exact).max() < 2.5
            changed += (image != original).sum()
    assert changed > images.size


def test_kinds_are_applied_in_the_order_of_the_list():
    """Contrast keeps the mean, brightness moves it: clipping makes their order matter."""
    images = noise()
    (one, _), (other, _) = (
        augmented(text, images)[0]
        for text in ('brightness:1,contrast:1', 'contrast:1,brightness:1')
    )
    (bright, _) = augmented('brightness:1', images)[0]
    np.testing.assert_array_equal(one, augmented('contrast:1', bright)[0][0])
    assert (one != other).any()


def test_the_draws_of_a_kind_do_not_depend_on_the_other_kinds():
    """Flip after or without a crop mirrors the same images: those of a symmetric crop."""
    images = noise()
    alone, both = (augmented(text, images)[0][0] for text in ('flip', 'crop:2,flip'))
    cropped = augmented('crop:2', images)[0][0]
    is_mirrored = (alone != images).any((1, 2, 3))
    np.testing.assert_array_equal(
        both, np.where(is_mirrored[:, None, None, None], cropped[:, :, ::-1], cropped)
    )


@pytest.mark.parametrize('size', [2, 4, 16])
def test_parts_are_those_of_the_global_batch(size):
    """To the last bit, also where a part is one image."""
    images, text = noise(), 'flip,crop:3,brightness,contrast,rotate:40,zoom:0.5'
    whole, rows = augmented(text, images, [9])[0][0], ROWS // size
    parts = [slice(start, start + rows) for start in range(0, ROWS, rows)]
    found = [augmented(text, images[part], [9], part)[0][0] for part in parts]
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_frozen_pixels():
    """Both TensorFlows draw the same numbers: a run of one goes on with the other."""
    images = np.arange(ROWS * 12).reshape(ROWS, 3, 4, 1).astype(np.uint8)
    found = augmented('flip,crop:1,brightness,contrast', images, [7])[0][0]
    assert found[:4, 1, :, 0].tolist() == FROZEN


FROZEN = [[50, 51, 52, 53], [53, 53, 52, 51], [15, 16, 17, 17], [21, 21, 20, 19]]


# --- the text of the flag -------------------------------------------------------------------------


@pytest.mark.parametrize(
    'text, expected',
    [
        ('', ()),
        ('flip', (('flip', 0),)),
        ('crop', (('crop', 8),)),
        ('crop:1024', (('crop', 1024),)),
        ('contrast,flip', (('contrast', 0.2), ('flip', 0))),
        ('brightness:1,contrast:.25', (('brightness', 1.0), ('contrast', 0.25))),
    ],
)
def test_a_list_is_read(text, expected):
    assert augmentation.parse(text) == expected


@pytest.mark.parametrize(
    'entry',
    [
        *('', ' flip', 'Flip', 'flip:1', 'flip:', 'turn', 'rotate:181'),
        *('crop:0', 'crop:', 'crop:2.5', 'crop:-1', 'crop:1025', 'crop:1e3', 'crop:\u0663'),
        *('brightness:0', 'brightness:1.5', 'brightness:nan', 'brightness:-0.1', 'contrast:inf'),
        *(
            'contrast:0.2:0.3',
            'contrast:0.2\n',
            'contrast:0.' + 400 * '0' + '1',
            'crop:' + 400 * '9',
        ),
    ],
)
def test_what_is_no_augmentation_is_refused_in_one_line(entry):
    with pytest.raises(ValueError) as caught:
        augmentation.parse('crop:4,' + entry if entry else 'flip,')
    assert str(caught.value) == (
        '--augment: expected flip, crop[:1 to 1024 pixels], brightness[:up to 1], '
        'contrast[:up to 1], rotate[:up to 180 degrees] or zoom[:up to 0.75], separated by '
        f'commas. Received: {entry!r}'
    )


def test_a_kind_is_named_once():
    with pytest.raises(ValueError, match='^--augment: expected each kind once. Received: crop twi'):
        augmentation.parse('crop:4,flip,crop')


@pytest.mark.parametrize('pixels', [7, 8])
def test_a_crop_must_be_smaller_than_the_image(pixels):
    with pytest.raises(ValueError) as caught:
        augmented(f'crop:{pixels}', noise())
    assert str(caught.value) == (
        '--augment: expected a crop of less than 7 pixels for images of 9x7. '
        f'Received: crop:{pixels}'
    )
    augmented('crop:6', noise())
