"""python -m trainers.export --ckpt_path=output/0: the inference of a checkpoint as one frozen
graph, for CANN's atc and others.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys

from gitloss.files import write_atomically
from trainers import run

_INTRO = (
    'Exports the inference of a checkpoint: gitloss.pb, a frozen graph that takes raw pixels, and '
    'gitloss.json, which describes it. Prints the atc command that converts the graph to an '
    'offline model.'
)
_SOC = 'Ascend310'  # the card that the published model was converted for


def frozen_graph(checkpoint, batch):
    """The inference of a checkpoints.Checkpoint without variables, labels, centers and summaries;
    `batch` images per call.

    Returns:
      (GraphDef, [input, outputs ...] as dictionaries): the placeholder `input_images`, float32
      [batch, height, width, channels], pixels 0 to 255, and the nodes `embeddings` float32 [batch,
      dim], `logits` float32 [batch, classes] and `predictions` int32 [batch].
    """
    from gitloss.backend import tf
    from gitloss.data.source import DataSpec
    from trainers import checkpoints
    from trainers.engine.graph import network
    from trainers.options import Options

    saved = Options.restored(checkpoint.manifest['options'])
    facts = checkpoint.manifest['dataset']
    spec = DataSpec(facts['name'], facts['image_shape'], facts['num_classes'])
    with tf.Graph().as_default() as graph:
        net, classifier = network(saved, spec, batch)
        found = [net.output, classifier.logits(net.output)]
        saver = tf.train.Saver(net.weights + classifier.weights)
        with tf.Session(graph=graph, config=tf.ConfigProto(device_count={'GPU': 0})) as session:
            checkpoints.restore(session, saver, checkpoint)
            frozen = tf.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), [tensor.op.name for tensor in found]
            )
    # Into a graph of its own, where the names that others rely on are free: layers have scopes of
    # the same names.
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, net.input.shape, name='input_images')
        embeddings, logits = tf.import_graph_def(
            frozen, {net.input.name: images}, [tensor.name for tensor in found], name='model'
        )
        outputs = [
            tf.identity(embeddings, name='embeddings'),
            tf.identity(logits, name='logits'),
            tf.argmax(logits, 1, output_type=tf.int32, name='predictions'),
        ]
        # Attributes with default values go: TensorFlow 1.15, and CANN with it, does not know those
        # that came later.
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


def atc_command(path, images, outputs):
    """The command that turns the frozen graph into an offline model beside it."""
    places = [shlex.quote(place) for place in (path, os.path.splitext(path)[0])]
    return 'atc --model={} --framework=3 --output={} --input_shape="{}:{}" --out_nodes="{}" --soc_version={}'.format(
        *places,
        images['name'],
        ','.join(map(str, images['shape'])),
        ';'.join(each['tensor'] for each in outputs),
        _SOC,
    )


def export(options):
    """Writes the graph and its manifest, prints where and how to convert it. Returns the exit
    status.
    """
    from trainers import checkpoints

    checkpoint = checkpoints.find(options.ckpt_path, '--ckpt_path')
    folder = os.path.abspath(options.export_dir or os.path.join(options.ckpt_path, 'export'))
    definition, (images, *outputs) = frozen_graph(checkpoint, options.export_batch)
    content = definition.SerializeToString()
    path = os.path.join(folder, 'gitloss.pb')
    os.makedirs(folder, exist_ok=True)
    write_atomically(path, content)
    manifest = {
        'format': options.format,
        'file': os.path.basename(path),
        'sha256': hashlib.sha256(content).hexdigest(),
        'input': dict(images, pixels='0 to 255', mean_image='in the graph'),
        'outputs': outputs,
        'checkpoint': {
            'path': checkpoint.path,
            'step': checkpoint.step,
            'metrics': checkpoint.manifest.get('metrics', {}),
        },
        'model': checkpoint.manifest['options'].get('model'),
        'versions': run.versions(),
        'atc': atc_command(os.path.basename(path), images, outputs),
    }
    write_atomically(os.path.join(folder, 'gitloss.json'), json.dumps(manifest, indent=1) + '\n')
    print(path)
    print(atc_command(path, images, outputs))
    return 0


def main(arguments=None):
    return run.main(arguments, 'trainers.export', _INTRO, export)


if __name__ == '__main__':
    sys.exit(main())
