"""The contestants of step.py --model: a network for faces in the real trainer and in PyTorch.

Images are random pixels: 32 of 112 x 112 x 3 in a batch, of 100 identities. Loss and optimizer are
those of flags/full.cfg, the embeddings those of the network's paper.
"""

import functools
import itertools

from contestants import ours
from measuring import median_ms

BATCH = 32
_CLASSES = 100
_WARM_UP = 3


def _dim(model):
    return 128 if model == 'mobilefacenet' else 512


def _dataset():
    import numpy

    from gitloss import data

    random = numpy.random.RandomState(0)
    source = data.ArraySource(
        random.randint(0, 256, (8 * BATCH, 112, 112, 3)).astype(numpy.uint8),
        random.randint(0, _CLASSES, 8 * BATCH).astype(numpy.int32),
    )
    spec = data.DataSpec('random', source.image_shape, _CLASSES, data.CENTERED)
    return data.Dataset(spec, source)


def _ours(model, steps, precision=''):
    return ours(
        steps,
        _dataset(),
        _WARM_UP,
        model=model,
        embedding_dim=_dim(model),
        batch_size=BATCH,
        precision=precision,
    )


def _torch(model, steps, in_bfloat16=False, is_channels_last=False):
    import numpy
    import torch
    import twins

    source, dim = _dataset().train, _dim(model)
    pixels = (source.images(numpy.arange(len(source))) - numpy.float32(127.5)) / 128
    parts = [slice(start, start + BATCH) for start in range(0, len(source), BATCH)]
    batches = itertools.cycle([(pixels[part], source.labels[part]) for part in parts])
    body, head = twins.network(model, dim, _CLASSES)
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    body, centers = body.to(memory_format=layout), torch.zeros(_CLASSES, dim)
    step = twins.training_step(body, head, batches, centers, False, layout, in_bfloat16)
    return median_ms(step, steps, _WARM_UP)


def contestants(model, in_bfloat16=False):
    """{name: function of the number of steps} for a network of gitloss/backbones for faces."""
    found = {'ours': lambda steps: _ours(model, steps, 'mixed' if in_bfloat16 else '')}
    if in_bfloat16:
        found['ours_float32'] = lambda steps: _ours(model, steps)
    for name, is_channels_last in (('torch', False), ('torch_channels_last', True)):
        found[name] = functools.partial(
            _torch, model, in_bfloat16=in_bfloat16, is_channels_last=is_channels_last
        )
    return found
