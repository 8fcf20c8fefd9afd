"""python -m trainers.export --ckpt_path=output/0 --format=onnx,tflite: the inference of a
checkpoint in files of other tools.

Formats: saved_model; pb, a frozen graph, for CANN's atc; onnx; tflite, tflite_float16 and
tflite_int8; or all. The files take raw pixels. Each is loaded by its own runtime and compared with
the checkpoint; if one differs, nothing is written. gitloss.json describes them, MODEL.md is a model
card, labels.txt has the names of the classes, if they have any. docs/export.md.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Sequence

from trainers import command, streams
from trainers.options import Options, absolute


def export_folder(checkpoint: Any, chosen: str) -> str:
    """Absolute path of the folder of an export, `chosen` or a default.

    The default is `export` in the folder of the run, or beside a checkpoint outside any run's
    series.

    Raises:
      ValueError: the folder is in a checkpoint, with which it would be removed.
    """
    from trainers.checkpoints import manifest, run_of

    path, run = os.path.abspath(checkpoint.path), run_of(checkpoint.path)
    default = os.path.join(run, 'export') if run else path + '.export'
    folder = part = absolute('export_dir', chosen or default)
    while part != os.path.dirname(part):
        if os.path.isfile(os.path.join(part, manifest.FILE)):
            raise ValueError(
                '--export_dir: expected a folder outside checkpoints, which are removed when newer '
                f'ones are saved. Received: {folder}, in the checkpoint {part}'
            )
        part = os.path.dirname(part)
    return folder


def _write(options: Options, checkpoint: Any) -> list[str]:
    """Writes the files of an export. Returns the lines to print."""
    from trainers.exporting import writing

    folder = export_folder(checkpoint, options.export_dir)
    return writing.write(options, checkpoint, folder)


def export(options: Options) -> int:
    """Writes the files, and prints their paths, how they compare, and the atc command.

    Returns:
      The exit status.
    """
    from trainers import checkpoints

    write = functools.partial(_write, options)
    for line in checkpoints.using(options.ckpt_path, '--ckpt_path', write):
        streams.output(line)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    return command.main(arguments, 'trainers.export', __doc__ or '', export)


if __name__ == '__main__':
    sys.exit(main())
