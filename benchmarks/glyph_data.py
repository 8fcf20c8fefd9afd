"""Characters of six CJK fonts as a data set of many classes: the data of glyphs.py.

An identity is a character, `U+4E00`; its images are the character in each of the fonts. Nothing is
downloaded: the fonts are packages of Debian, and the images are drawn here.
"""

import collections
import contextlib
import io
import itertools
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from gitloss import files
from gitloss.data.images import ImageSource
from gitloss.errors import check


class Font(NamedTuple):
    """path: below /usr/share/fonts/truetype; of a collection, its first font is taken.
    package: of Debian. design: fonts of one design draw most characters alike.
    """

    path: str
    package: str
    design: str


FONTS = {
    'micro_hei': Font('wqy/wqy-microhei.ttc', 'fonts-wqy-microhei', 'droid'),  # Apache 2.0, GPL 3
    'zen_hei': Font('wqy/wqy-zenhei.ttc', 'fonts-wqy-zenhei', 'zen_hei'),  # GPL 2, font exception
    'droid': Font('droid/DroidSansFallbackFull.ttf', 'fonts-droid-fallback', 'droid'),  # Apache 2.0
    'ukai': Font('arphic/ukai.ttc', 'fonts-arphic-ukai', 'kai'),  # Arphic Public License
    'song': Font('arphic-gbsn00lp/gbsn00lp.ttf', 'fonts-arphic-gbsn00lp', 'song'),  # Arphic
    'kai': Font('arphic-gkai00mp/gkai00mp.ttf', 'fonts-arphic-gkai00mp', 'kai'),  # Arphic
}
FOLDER = '/usr/share/fonts/truetype'
CJK = range(0x4E00, 0xA000)  # the block CJK Unified Ideographs
SIZE = 32  # pixels of an image, both ways
_FINE, _EM, _CANVAS = 4, 28, 64  # drawn so many times larger; em and canvas in pixels of an image
FOLDS = 10
FREETYPE = features.version('freetype2')  # another one may draw other pixels


def font_paths(folder=FOLDER):
    """{name: path} of the fonts. ValueError: one is missing; the line says what to install."""
    paths = {name: os.path.join(folder, font.path) for name, font in FONTS.items()}
    missing = [name for name in FONTS if not os.path.isfile(paths[name])]
    received = f'none: apt-get install {" ".join(FONTS[name].package for name in missing)}'
    check(not missing, paths[missing[0]] if missing else '', 'a font', received)
    return paths


def drawable(path, codes):
    """The code points among `codes` that a TrueType font draws: they are in its character map, and
    their glyph has an outline and is not .notdef.
    """
    from fontTools.ttLib import TTFont  # Matplotlib needs it, so it is there

    with contextlib.closing(TTFont(path, fontNumber=0, lazy=True)) as font:
        mapped, numbers = font.getBestCmap(), font.getReverseGlyphMap()
        places = font['loca'].locations  # of the outlines: an empty one ends where it begins
        glyphs = {code: numbers[mapped[code]] for code in codes if code in mapped}
        return {code for code, n in glyphs.items() if n and places[n] < places[n + 1]}


def common(maps, least=3):
    """{code point: names of the fonts that have it}, in ascending order, of those that at least
    `least` fonts have.

    Args:
      maps: {font: set of code points}.
    """
    counts = collections.Counter(itertools.chain.from_iterable(maps.values()))
    chosen = sorted(code for code, count in counts.items() if count >= least)
    return {code: [name for name in maps if code in maps[name]] for code in chosen}


def dealt(codes, fraction=0.1, seed=1):
    """(training, test): the code points, each in ascending order. The test has `fraction`."""
    order = np.random.RandomState(seed).permutation(np.sort(list(codes))).tolist()
    held_out = int(round(fraction * len(order)))
    return sorted(order[held_out:]), sorted(order[:held_out])


def identity(code):
    return f'U+{code:04X}'


def opened(path):
    """The font at the size in which `draw` takes it."""
    return ImageFont.truetype(path, _EM * _FINE, layout_engine=ImageFont.Layout.BASIC)


def draw(font, code):
    """A character, uint8 [SIZE, SIZE], white on black: its ink is in the middle, and what is larger
    than the image is cut off. It is drawn four times as large and reduced by means, so that hinting
    and embedded bitmaps have no say.
    """
    canvas = Image.new('L', (_CANVAS * _FINE,) * 2)
    corner = (_CANVAS - _EM) // 2 * _FINE
    ImageDraw.Draw(canvas).text((corner, corner), chr(code), font=font, fill=255)
    box = canvas.getbbox()
    check(box, f'{font.path}: {identity(code)}', 'a glyph', 'an empty image')
    left, top = ((box[i] + box[i + 2] - SIZE * _FINE) // 2 for i in (0, 1))
    window = canvas.crop((left, top, left + SIZE * _FINE, top + SIZE * _FINE))
    return np.asarray(window.reduce(_FINE))


def encoded(pixels):
    """A PGM file of an image: its bytes depend on no compressor."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'PPM')
    return content.getvalue()


class GlyphSource(ImageSource):
    """Characters, drawn as they are read; `gitloss.data.conversion` packs them into shards.

    Args:
      paths: {font: path}.
      fonts_of: {code point: names of its fonts}; as `common` returns it.
    """

    def __init__(self, paths, fonts_of):
        self._paths = paths
        self._fonts = {name: opened(path) for name, path in paths.items()}
        self._places = [(code, name) for code, names in fonts_of.items() for name in names]
        labels = np.repeat(np.arange(len(fonts_of)), [len(each) for each in fonts_of.values()])
        names = [identity(code) for code in fonts_of]
        super().__init__('the fonts', labels, names, (SIZE, SIZE, 1))

    def encoded(self, index):
        code, name = self._places[index]
        return encoded(draw(self._fonts[name], code))

    def where(self, index):
        code, name = self._places[index]
        return f'{self._paths[name]}: {identity(code)}'

    def name(self, index):
        """The path of an image of the test, without extension."""
        code, name = self._places[index]
        return f'{identity(code)}/{name}'

    def catalogue(self):
        for name, path in self._paths.items():
            yield f'{FREETYPE} {name} {files.digest(path)} {self._places}'.encode('ascii')


def write_folder(source, folder):
    """Writes each image to a file of its own, in a folder for each character."""
    for name in source.names:
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    for index in range(len(source)):
        with open(os.path.join(folder, source.name(index) + '.pgm'), 'wb') as file:
            file.write(source.encoded(index))


def pairs_of(fonts_of, each=600, seed=1):
    """(image, image, whether of one character, fold) of pairs for a verification.

    Characters are dealt to ten folds; no pair crosses folds. A fold has up to `each` genuine pairs,
    of two fonts of different designs, and for each of them an impostor pair: the first image and
    another character in the second font, so that fonts say nothing about the kind of a pair.

    Args:
      fonts_of: {code point: names of its fonts}.
    """
    random, rows = np.random.RandomState(seed), []
    order = random.permutation(list(fonts_of)).tolist()
    for fold in range(FOLDS):
        mine = order[fold::FOLDS]
        owners = {name: [code for code in mine if name in fonts_of[code]] for name in FONTS}
        same = [
            (code, *both)
            for code in mine
            for both in itertools.combinations(fonts_of[code], 2)
            if len({FONTS[name].design for name in both}) > 1
        ]
        for place in random.permutation(len(same))[:each].tolist():
            code, one, two = same[place]
            others = [other for other in owners[two] if other != code]
            image = f'{identity(code)}/{one}'
            rows.append((image, f'{identity(code)}/{two}', 1, fold))
            if others:
                other = others[random.randint(len(others))]
                rows.append((image, f'{identity(other)}/{two}', 0, fold))
    return rows
