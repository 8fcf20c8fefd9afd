"""python -m trainers.export --ckpt_path=output/0: the inference of a checkpoint as a frozen graph,
for CANN's atc and other tools.

Exports the inference of a checkpoint: gitloss.pb, a frozen graph that takes raw pixels;
gitloss.json, which describes it; labels.txt, if the classes have names. Prints the atc command that
converts the graph to an offline model.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shlex
import sys
from typing import Any, Sequence

from gitloss.files import read, write_atomically
from trainers import command, streams
from trainers.options import Options, absolute

_SOC = 'Ascend310'  # the card of the published model


def _frozen(checkpoint: Any, batch: int) -> tuple[Any, Any]:
    """(the Inference, its GraphDef with the weights as constants)."""
    from gitloss.backend import tf
    from trainers import checkpoints
    from trainers.engine.inference import Inference

    options = checkpoints.options_of(checkpoint)
    spec = checkpoints.spec_of(checkpoint)
    on_cpu = tf.ConfigProto(device_count={'GPU': 0})
    with checkpoints.session_of(checkpoint, lambda: Inference(options, spec, batch), on_cpu) as (
        net,
        session,
    ):
        return net, tf.graph_util.convert_variables_to_constants(
            session,
            session.graph.as_graph_def(),
            [net.embeddings.op.name, net.logits.op.name],
        )


def frozen_graph(checkpoint: Any, batch: int) -> tuple[Any, list[dict[str, Any]]]:
    """The inference of a checkpoint: no variables, labels, centers or summaries.

    Args:
      checkpoint: a trainers.checkpoints.Checkpoint.
      batch: images per call.

    Returns:
      (GraphDef, [input, outputs ...] as dictionaries): the placeholder `input_images`, float32
      [batch, height, width, channels], pixels 0 to 255, and the nodes `embeddings` float32 [batch,
      dim], `logits` float32 [batch, classes] and `predictions` int32 [batch].
    """
    from gitloss.backend import tf

    net, frozen = _frozen(checkpoint, batch)
    # A new graph, in which the names of the outputs are free: scopes of layers have the same names.
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, net.images.shape, name='input_images')
        embeddings, logits = tf.import_graph_def(
            frozen, {net.images.name: images}, [net.embeddings.name, net.logits.name], name='model'
        )
        outputs = [
            tf.identity(embeddings, name='embeddings'),
            tf.identity(logits, name='logits'),
            tf.argmax(logits, 1, output_type=tf.int32, name='predictions'),
        ]
        # Without defaults: TensorFlow 1.15, and so CANN, does not know the newer attributes.
        whole = tf.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def
    definition = tf.graph_util.extract_sub_graph(whole, [tensor.op.name for tensor in outputs])
    for node in definition.node:
        node.attr.pop('_output_shapes', None)
    return definition, [
        {
            'name': tensor.op.name,
            'tensor': tensor.name,
            'shape': tensor.shape.as_list(),
            'dtype': tensor.dtype.name,
        }
        for tensor in [images] + outputs
    ]


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


def atc_command(path: str, images: dict[str, Any], outputs: Sequence[dict[str, Any]]) -> str:
    """The command that converts the frozen graph to an offline model in the same folder."""
    source, target = (shlex.quote(place) for place in (path, os.path.splitext(path)[0]))
    shape = ','.join(map(str, images['shape']))
    nodes = ';'.join(each['tensor'] for each in outputs)
    return (
        f'atc --model={source} --framework=3 --output={target} '
        f'--input_shape="{images["name"]}:{shape}" --out_nodes="{nodes}" --soc_version={_SOC}'
    )


def _copy_labels(checkpoint: Any, folder: str) -> str | None:
    """Copies the names of the classes from the run. Returns the name of the file; None: the labels
    have no names, or the run is gone.
    """
    from gitloss.data import LABELS
    from trainers import checkpoints

    run = checkpoints.run_of(checkpoint.path)
    source = os.path.join(run, LABELS)
    if not (run and os.path.isfile(source)):
        return None
    write_atomically(os.path.join(folder, LABELS), read(source))
    return LABELS


def _write(options: Options, checkpoint: Any) -> tuple[str, str]:
    """Writes the graph and its manifest. Returns the path of the graph and the atc command."""
    folder = export_folder(checkpoint, options.export_dir)
    definition, (images, *outputs) = frozen_graph(checkpoint, options.export_batch)
    content = definition.SerializeToString(deterministic=True)
    path = os.path.join(folder, 'gitloss.pb')
    os.makedirs(folder, exist_ok=True)
    write_atomically(path, content)
    manifest = {
        'format': options.format,
        'file': os.path.basename(path),
        'sha256': hashlib.sha256(content).hexdigest(),
        'input': dict(images, pixels='0 to 255', mean_image='in the graph'),
        'outputs': outputs,
        'labels': _copy_labels(checkpoint, folder),
        'checkpoint': {
            'path': checkpoint.path,
            'step': checkpoint.step,
            'metrics': checkpoint.manifest.get('metrics', {}),
        },
        'model': checkpoint.manifest['options'].get('model'),
        'versions': command.versions(),
        'atc': atc_command(os.path.basename(path), images, outputs),
    }
    write_atomically(os.path.join(folder, 'gitloss.json'), json.dumps(manifest, indent=1) + '\n')
    return path, atc_command(path, images, outputs)


def export(options: Options) -> int:
    """Writes the graph and its manifest, and prints its path and the atc command.

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
