"""The options for the learning: network, loss and optimization."""

from __future__ import annotations

import dataclasses

from trainers.options.spec import POSITIVE, option


@dataclasses.dataclass(frozen=True)
class Learning:
    """The second part of Options."""

    model: str = option(
        'mnist_cnn',
        'Embedding network: mnist_cnn (the published one) or lenet_pp (LeNet++) for digits; '
        'mobilefacenet, iresnet18, iresnet34, iresnet50, iresnet100 or inception_resnet_v1 for '
        'faces; applications:NAME, a network of tf.keras.applications. See docs/networks.md.',
        'network',
    )
    embedding_dim: int = option(2, 'Dimension of the embeddings.', 'network', low=1, high=65536)
    dropout: float = option(
        0.0,
        'Fraction of the features that training drops before the embedding layer.',
        'network',
        accepts=(lambda value: 0 <= value < 1, 'from 0 to less than 1'),
    )
    embedding_norm: bool = option(
        False, 'Batch normalisation of the embeddings, as in ArcFace and facenet.', 'network'
    )
    normalize: bool = option(
        False,
        'Scale the embeddings to length 1: run, in the losses too and in everything that is saved; '
        'embed, those in the file.',
        'network',
        commands=('run', 'embed'),
    )
    preprocessing: str = option(
        'auto',
        'Input of the network: mean_image, pixels / 255 minus the mean training image; centered, '
        '(pixels - 127.5) / 128; auto, what the data set has: mean_image for mnist.',
        'network',
        choices=('auto', 'mean_image', 'centered'),
    )
    norm_statistics: str = option(
        'global',
        'Statistics of batch normalisation with several workers: global, those of the global '
        "batch, so that the workers train as one; local, those of each worker's part of it.",
        'network',
        choices=('global', 'local'),
    )

    head: str = option(
        'softmax',
        'Classifier of the softmax loss: softmax; arcface or cosface, a margin softmax on '
        'cosines. See --margin and --scale.',
        'loss',
    )
    lambda_c: float = option(
        1.0, 'Weight of the center loss. 0: it is only logged.', 'loss', low=0.0
    )
    lambda_g: float = option(1.0, 'Weight of the git loss. 0: it is only logged.', 'loss', low=0.0)
    lambda_warmup_steps: int = option(
        0,
        'Steps during which --lambda_c and --lambda_g rise linearly from 0: the classes separate '
        'first, by the softmax loss.',
        'loss',
        low=0,
        high=10**9,
    )
    git_loss_form: str = option(
        'elementwise',
        "Form of the center and git losses: elementwise, as in the authors' code and the "
        'published numbers; pairwise, with the norm of the paper.',
        'loss',
        choices=('elementwise', 'pairwise'),
    )
    distance: str = option(
        'euclidean',
        'Distance in the center and git losses: euclidean; cosine, between embeddings and '
        'centers normalised to length 1.',
        'loss',
        choices=('euclidean', 'cosine'),
    )
    alpha: float = option(
        0.5,
        'Update rate of the centers: how far each center moves towards its samples in a step.',
        'loss',
        low=0.0,
        high=1.0,
    )
    center_init: str = option(
        'zero',
        'Initial centers: zero; means, the class means of the training set under the initial '
        'weights.',
        'loss',
        choices=('zero', 'means'),
    )
    reset_centers: bool = option(
        False, 'Set the centers to the class means of the training set at each measurement.', 'loss'
    )
    margin: float = option(
        -1.0,
        'Margin of --head=arcface (in radians) and cosface. -1: those of the papers, 0.5 and 0.35.',
        'loss',
        low=-1.0,
        high=1.57,
    )
    scale: float = option(
        0.0,
        'Scale of the cosines of --head=arcface and cosface. 0: that of the papers, 64.',
        'loss',
        low=0.0,
    )
    weight_decay: float = option(
        0.0,
        'Weight of the L2 penalty on kernels. Biases and the parameters of normalisation are '
        'excluded.',
        'loss',
        low=0.0,
    )

    shard_classes: bool = option(
        False,
        'Many classes: each worker has the class weights and the centers of a contiguous range of '
        'the classes. See docs/many_classes.md.',
        'classes',
    )
    class_shards: int = option(
        1,
        'With --shard_classes, parts of the classes on each worker, computed one after another, '
        'which saves memory.',
        'classes',
        resume=True,
        low=1,
        high=1024,
    )
    sample_classes: float = option(
        1.0,
        'With --shard_classes, the fraction of the classes that a training step computes: those '
        'of the batch and a random rest. 1: all.',
        'classes',
        accepts=(lambda value: 0 < value <= 1, 'more than 0, at most 1'),
    )
    lazy_adam: bool = option(
        False,
        'With --sample_classes and --optimizer=adam: classes that are not in a step keep their '
        'weights and averages. Without it all classes move, as far as Adam has them move without '
        'a gradient, which takes as long as without a sample.',
        'classes',
    )

    steps: int = option(8000, 'Number of training steps.', 'optimization', resume=True, low=1)
    batch_size: int = option(
        128,
        'Images per batch. With several workers it is the global batch, which they share.',
        'optimization',
        commands=('run', 'evaluate', 'embed', 'predict'),
        low=1,
        high=1 << 20,
    )
    learning_rate: float = option(
        1e-3,
        'Learning rate, before --schedule and --warmup_steps apply.',
        'optimization',
        accepts=POSITIVE,
    )
    optimizer: str = option(
        'adam',
        'Optimizer; momentum is SGD with --momentum. Settings without a flag are the defaults '
        'of TensorFlow.',
        'optimization',
        choices=('adam', 'sgd', 'momentum', 'adagrad'),
    )
    adam_epsilon: float = option(
        1e-8,
        'Epsilon of --optimizer=adam. Values below 6e-8 are 0 in float16; 1e-4 is advised with '
        'mixed precision.',
        'optimization',
        accepts=POSITIVE,
    )
    momentum: float = option(
        0.9, 'Momentum of --optimizer=momentum.', 'optimization', low=0.0, high=1.0
    )
    schedule: str = option(
        'constant',
        'Schedule of the learning rate: constant; step, multiplied by --decay_rate every '
        '--decay_steps; cosine, down to 0 at --steps.',
        'optimization',
        choices=('constant', 'step', 'cosine'),
    )
    warmup_steps: int = option(
        0,
        'Steps during which the learning rate rises linearly from 0, with any schedule.',
        'optimization',
        low=0,
        high=10**9,
    )
    decay_steps: int = option(
        0, 'Steps between two decays of --schedule=step.', 'optimization', low=0, high=10**9
    )
    decay_rate: float = option(
        0.1, 'Factor of each decay of --schedule=step.', 'optimization', low=0.0, high=1.0
    )
    seed: int = option(
        1,
        'Seed of the initial weights and of the order of the batches.',
        'optimization',
        low=0,
        high=2**31 // 1000 - 1,
    )
    init_checkpoint: str = option(
        '',
        "Fine-tuning: checkpoint with the initial weights, or a run's folder. If the number of "
        'classes differs, the classifier and the centers are initialised afresh.',
        'optimization',
    )
    freeze: str = option(
        '',
        'Fine-tuning: variables that are not trained, by prefixes of their names, separated by '
        'commas: conv1,conv2. backbone: all before the embedding layer.',
        'optimization',
    )
    unfreeze_at: int = option(
        0,
        'Fine-tuning: the step after which the variables of --freeze are trained too. 0: never.',
        'optimization',
        low=0,
        high=10**9,
    )
    backbone_rate: float = option(
        1.0,
        'Fine-tuning: factor on the learning rate of the variables before the embedding layer.',
        'optimization',
        accepts=POSITIVE,
    )
