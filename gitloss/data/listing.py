"""A list of images: a line with a path and a label for each."""

from __future__ import annotations

import csv
import io
import os
import re
from typing import Any

from gitloss.data.folder import FileSource
from gitloss.data.texts import Labels, Texts, text_lines
from gitloss.errors import check, one_line

_EXPECTED = 'a path and a label, with a tab or a space between them, in quotes if they hold it'


def open_list(path: str, image_shape: tuple[int, ...]) -> FileSource:
    """The images that a file lists: `path<TAB>label`, or with a space instead.

    A path or label that holds the separator stands in double quotes; a double quote in quotes is
    doubled. Paths are relative to the folder of the list. Lines that begin with # are comments.

    Args:
      path: the list, in UTF-8.
      image_shape: (height, width, channels) to which images are scaled.

    Raises:
      ValueError: a line of another form, or no lines.
      OSError: the list cannot be read.
    """
    shown, paths, labels = one_line(path, 5000), Texts(), Labels()
    delimiter = '\t' if '\t' in next(filter(None, text_lines(path)), '') else ' '
    rows = csv.reader(text_lines(path), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in filter(None, rows):
            is_pair = len(row) == 2 and all(row) and '\0' not in row[0]
            text = one_line(delimiter.join(row), 200)
            check(is_pair, f'{shown}, line {rows.line_num}', _EXPECTED, repr(text))
            paths.append(row[0])
            labels.append(row[1])
    except csv.Error as error:
        check(False, f'{shown}, line {rows.line_num}', _EXPECTED, error)
    return FileSource(path, os.path.dirname(path), paths, labels, image_shape)


def line(path: str, label: str) -> str:
    """The line of a list, as `open_list` reads it, for an image.

    Raises:
      ValueError: the path or the label is empty or has a line break.
    """
    is_fit = path and label and not re.search('[\n\0]', path + label)
    check(is_fit, 'list', 'a path and a label of one line each', one_line(repr((path, label))))
    needs_quotes = path.startswith('#') or any(text != text.strip() for text in (path, label))
    quoting: Any = csv.QUOTE_ALL if needs_quotes else csv.QUOTE_MINIMAL
    text = io.StringIO()
    writer = csv.writer(text, delimiter='\t', lineterminator='\r\n', quoting=quoting)
    writer.writerow([path, label])
    return text.getvalue()[: -len('\r\n')] + '\n'  # \r is in quotes as well
