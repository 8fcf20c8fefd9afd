"""python keras_replicas.py KERAS: a fit alone and one on two replicas, as a line of JSON."""

import json
import sys

from gitloss.backend import tf
from keras_models import Kit, fitted, samples, value


def devices():
    """Two CPUs in place of one."""
    cpu = tf.config.experimental.list_physical_devices('CPU')[0]
    half = tf.config.experimental.VirtualDeviceConfiguration()
    tf.config.experimental.set_virtual_device_configuration(cpu, [half, half])
    return ['cpu:0', 'cpu:1']


def result(kit, strategy, form):
    """Centers, updates, history and evaluation of two epochs, whose last batch is shorter."""
    with strategy.scope():
        model = kit.compiled(form=form, lambda_g=0.5)
    images, labels = samples(90)
    history = fitted(model, epochs=2, count=90)
    measured = model.evaluate(images, labels, batch_size=30, verbose=0, return_dict=True)
    return {
        'centers': value(model.centers).tolist(),
        'updates': value(model.center_updates).tolist(),
        'history': history,
        'measured': measured,
    }


def main():
    names = devices()
    kit, mirrored = Kit(sys.argv[1]), tf.distribute.MirroredStrategy(names)
    found = [
        {form: result(kit, strategy, form) for form in ('elementwise', 'pairwise')}
        for strategy in (tf.distribute.get_strategy(), mirrored)
    ]
    print('\n' + json.dumps(found))


if __name__ == '__main__':
    main()
