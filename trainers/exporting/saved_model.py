"""A SavedModel, for TensorFlow Serving and both TensorFlows."""

from __future__ import annotations

from gitloss.backend import tf
from trainers.exporting.content import Content
from trainers.exporting.folding import copied


def write(content: Content, path: str) -> None:
    """Writes a folder with the tag `serve` and the signature `serving_default`, whose method is
    predict.
    """
    facts = content.graph
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(copied(facts.definition), name='')
        infos = {
            each['name']: tf.saved_model.build_tensor_info(graph.get_tensor_by_name(each['tensor']))
            for each in (facts.images, *facts.outputs)
        }
        images = {facts.images['name']: infos.pop(facts.images['name'])}
        signature = tf.saved_model.build_signature_def(
            images, infos, tf.saved_model.signature_constants.PREDICT_METHOD_NAME
        )
        key = tf.saved_model.signature_constants.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        builder = tf.saved_model.Builder(path)
        with tf.Session(graph=graph, config=tf.ConfigProto(device_count={'GPU': 0})) as session:
            builder.add_meta_graph_and_variables(
                session,
                [tf.saved_model.tag_constants.SERVING],
                {key: signature},
                strip_default_attrs=True,
            )
        builder.save()
