"""Networks, loss and training step in PyTorch, layer by layer as in gitloss/backbones.

Batch normalisation has the settings of ours. With stride 2, PyTorch pads both sides of an image and
TensorFlow only the far one; the work is the same.
"""

import torch
from measuring import cores
from torch import nn
from torch.nn import functional

from gitloss.backbones import inception_resnet_v1 as inception
from gitloss.backbones import iresnet, mobilefacenet


def mnist_cnn():
    """(layers up to the embeddings, layers up to the logits)."""
    layers, channels = [], 1
    for filters in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1152, 2))
    return body, nn.Sequential(nn.PReLU(2, 0.0), nn.Linear(2, 10))


class Residual(nn.Module):
    """scale * body(x) + shortcut(x)."""

    def __init__(self, body, shortcut=None, scale=1.0):
        super().__init__()
        self.body, self.shortcut, self.scale = body, shortcut or nn.Identity(), scale

    def forward(self, x):
        return torch.add(self.shortcut(x), self.body(x), alpha=self.scale)


class Branches(nn.ModuleList):
    """The channels of all branches, one after the other."""

    def forward(self, x):
        return torch.cat([branch(x) for branch in self], 1)


def _conv(before, after, size, stride=1, groups=1, padding=None):
    padding = size // 2 if padding is None else padding
    return nn.Conv2d(before, after, size, stride, padding, groups=groups, bias=False)


def _active(before, after, size, stride=1, groups=1):
    """Convolution, batch normalisation, PReLU."""
    norm = nn.BatchNorm2d(after, 1e-3)
    return [_conv(before, after, size, stride, groups), norm, nn.PReLU(after)]


def _mobilefacenet():
    layers, channels = [*_active(3, 64, 3, 2), *_active(64, 64, 3, 1, 64)], 64
    for expansion, filters, repetitions, first in mobilefacenet.BOTTLENECKS:
        for stride in [first] + [1] * (repetitions - 1):
            wide = channels * expansion
            body = nn.Sequential(
                *_active(channels, wide, 1),
                *_active(wide, wide, 3, stride, wide),
                _conv(wide, filters, 1),
                nn.BatchNorm2d(filters, 1e-3),
            )
            layers.append(Residual(body) if stride == 1 and channels == filters else body)
            channels = filters
    layers += [*_active(channels, 512, 1), _conv(512, 512, 7, 1, 512, 0)]
    return [*layers, nn.BatchNorm2d(512, 1e-3)], 512


def _iresnet(depth):
    layers, channels = [_conv(3, 64, 3), nn.BatchNorm2d(64, 2e-5), nn.PReLU(64)], 64
    for filters, units in zip((64, 128, 256, 512), iresnet.UNITS[depth]):
        for stride in [2] + [1] * (units - 1):
            body = nn.Sequential(
                nn.BatchNorm2d(channels, 2e-5),
                _conv(channels, filters, 3),
                nn.BatchNorm2d(filters, 2e-5),
                nn.PReLU(filters),
                _conv(filters, filters, 3, stride),
                nn.BatchNorm2d(filters, 2e-5),
            )
            shortcut = [_conv(channels, filters, 1, stride), nn.BatchNorm2d(filters, 2e-5)]
            layers.append(Residual(body, nn.Sequential(*shortcut) if stride > 1 else None))
            channels = filters
    return [*layers, nn.BatchNorm2d(512, 2e-5)], 7 * 7 * 512


def _inception_conv(before, after, size, stride=1, padding='same'):
    sizes = size if isinstance(size, tuple) else (size, size)
    sides = tuple(one // 2 if padding == 'same' else 0 for one in sizes)
    norm = nn.BatchNorm2d(after, 1e-3)
    norm.weight.requires_grad_(False)  # no gamma
    conv = nn.Conv2d(before, after, sizes, stride, sides, bias=False)
    return nn.Sequential(conv, norm, nn.ReLU())


def _branches(channels, block, *others):
    """(the module, its number of channels without those of `others`)."""
    found, total = [], 0
    for branch in block:
        widths = [channels, *(settings[0] for settings in branch)]
        convs = [_inception_conv(width, *conv) for width, conv in zip(widths, branch)]
        found.append(nn.Sequential(*convs))
        total += widths[-1]
    return Branches([*found, *others]), total


def _inception_resnet_v1():
    layers, channels = [], 3
    for number, settings in enumerate(inception.STEM, 1):
        layers.append(_inception_conv(channels, *settings))
        channels = settings[0]
        if number == 3:
            layers.append(nn.MaxPool2d(3, 2))
    for kind, block, scale, reduction in (
        ('a', inception.BLOCK_A, 0.17, inception.REDUCTION_A),
        ('b', inception.BLOCK_B, 0.10, inception.REDUCTION_B),
        ('c', inception.BLOCK_C, 0.20, None),
    ):
        repeats = inception.REPEATS[kind]
        for number in range(repeats + (kind == 'c')):
            is_last = number == repeats  # block C once more, without scale and activation
            branches, width = _branches(channels, block)
            body = nn.Sequential(branches, nn.Conv2d(width, channels, 1))
            layers.append(Residual(body, scale=1.0 if is_last else scale))
            layers += [] if is_last else [nn.ReLU()]
        if reduction:
            branches, width = _branches(channels, reduction, nn.MaxPool2d(3, 2))
            layers.append(branches)
            channels += width
    return [*layers, nn.AdaptiveAvgPool2d(1)], channels


def network(name, dim, classes):
    """(layers from images of 112 x 112 pixels up to the embeddings, layers up to the logits)."""
    if name == 'mobilefacenet':
        layers, features = _mobilefacenet()
    elif name == 'inception_resnet_v1':
        layers, features = _inception_resnet_v1()
    else:
        layers, features = _iresnet(int(name[len('iresnet') :]))
    body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, dim))
    return body.train(), nn.Linear(dim, classes)


def _objective(body, head, batch):
    """(images, labels, centers) -> (total loss, embeddings)."""
    eye = torch.eye(batch)

    def objective(pixels, classes, table):
        embeddings = body(pixels).float()
        rows = table[classes]
        difference = (embeddings[:, None] - rows[None, :]) * (1 - eye)[:, :, None]
        total = (
            functional.cross_entropy(head(embeddings), classes)
            + ((embeddings - rows) ** 2).mean()
            + (1 / (1 + difference**2)).mean()
        )
        return total, embeddings

    return objective


def training_step(
    body, head, batches, centers, compiled=False, memory_format=None, in_bfloat16=False
):
    """A function that does one step in PyTorch, with the loss of flags/full.cfg and Adam.

    Args:
      body, head: modules from images to embeddings, and from embeddings to logits.
      batches: iterator over (float32 images [batch, height, width, channels], labels).
      centers: tensor [classes, dim] of zeros.
      compiled: through torch.compile.
      memory_format: of the images in PyTorch; None: contiguous.
      in_bfloat16: by autocast, which leaves the losses in float32.
    """
    torch.set_num_threads(cores())
    memory_format = memory_format or torch.contiguous_format
    first = next(batches)
    objective = _objective(body, head, len(first[1]))
    if compiled:
        objective = torch.compile(objective)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-3, eps=1e-8)

    def step():
        pixels, classes = next(batches)
        pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        pixels = pixels.contiguous(memory_format=memory_format)
        classes = torch.from_numpy(classes.astype('int64'))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast('cpu', torch.bfloat16, enabled=in_bfloat16):
            total, embeddings = objective(pixels, classes, centers)
        total.backward()
        optimizer.step()
        with torch.no_grad():
            counts = torch.bincount(classes, minlength=len(centers))[classes]
            moves = -0.5 * (centers[classes] - embeddings) / (1 + counts)[:, None]
            centers.index_add_(0, classes, moves)
        return total.item()

    return step
