"""Many classes: characters of six CJK fonts, trained and judged on characters never seen.

    apt-get install fonts-wqy-microhei fonts-wqy-zenhei fonts-droid-fallback \\
        fonts-arphic-ukai fonts-arphic-gbsn00lp fonts-arphic-gkai00mp
    python benchmarks/glyphs.py --out=output/glyphs                             # draws the images
    python benchmarks/glyphs.py --out=output/glyphs --run whole --steps=3000    # trains and judges

The 20,924 characters that at least three of the fonts have are drawn at 32 x 32 pixels. 18,832 of
them are the training, as TFRecord shards in OUT/train; 2,092 are the test, a folder for each in
OUT/test. --run trains OUT/runs/NAME by `trainers.run` (with --workers=2, by two workers of
`trainers.launch`); flags that are not listed below go there and win over those of this program. The
same command continues what was interrupted. Then it judges the network on the test:

  accuracy, EER, TAR   OUT/pairs.txt: 6,000 genuine and 6,000 impostor pairs in ten folds
  rank-1               which character in the font zen_hei is nearest to one in another font?

--pixels judges the images themselves, without a network. A table of all that was judged is printed.

Licences: fonts-wqy-microhei Apache 2.0 or GPL 3 with font exception; fonts-wqy-zenhei GPL 2 with
font exception; fonts-droid-fallback Apache 2.0; fonts-arphic-* Arphic Public License. micro_hei
descends from droid, and both kai are by Arphic: no pair of OUT/pairs.txt is of two such fonts.
"""

import json
import os
import signal
import subprocess
import sys

import measuring
import numpy as np
from glyph_data import (
    CJK,
    FONTS,
    FREETYPE,
    SIZE,
    GlyphSource,
    common,
    dealt,
    drawable,
    font_paths,
    pairs_of,
    write_folder,
)

from gitloss import files
from gitloss.data.embedding_files import read_npz
from gitloss.errors import check, reason
from gitloss.metrics.retrieval import retrieval

GALLERY = 'zen_hei'
PROBES = [name for name in FONTS if name != GALLERY]
NETWORK = (
    f'--dataset=tfrecord --image_size={SIZE} --channels=1 --valid_fraction=0 --test_fraction=0 '
    '--max_broken=100 --model=mobilefacenet --embedding_dim=128 --embedding_norm --head=softmax '
    '--git_loss_form=pairwise --lambda_c=0.003 --lambda_g=0.1 --batch_size=128 --steps=3000 '
    '--learning_rate=0.003 --schedule=cosine --warmup_steps=100 --weight_decay=0.0005 --seed=1 '
    '--device=cpu --save_every=60s --noevaluate'
)


def draw_all(folder):
    """Draws training and test, unless they are there. ValueError: those of other fonts are."""
    from gitloss.data import conversion

    paths, kept = font_paths(), os.path.join(folder, 'glyphs.json')
    facts = {'size': SIZE, 'fonts': {name: files.digest(path) for name, path in paths.items()}}
    if os.path.isfile(kept):
        with open(kept) as file:
            found = json.load(file)
        is_same = all(found.get(key) == value for key, value in facts.items())
        check(is_same, kept, 'images of these fonts', 'those of others: take another --out')
        return
    fonts_of = common({name: drawable(path, CJK) for name, path in paths.items()})
    train, test = ({code: fonts_of[code] for code in part} for part in dealt(fonts_of))
    source = GlyphSource(paths, train)
    conversion.convert(source, os.path.join(folder, 'train'), 1 << 14, threads=1)
    held_out = GlyphSource(paths, test)
    write_folder(held_out, os.path.join(folder, 'test'))
    lines = ('\t'.join(map(str, row)) + '\n' for row in pairs_of(test))
    files.write_atomically(os.path.join(folder, 'pairs.txt'), ''.join(lines))
    facts.update(characters=[len(train), len(test)], images=[len(source), len(held_out)])
    facts['freetype'] = FREETYPE
    files.write_atomically(kept, json.dumps(facts, indent=1) + '\n')
    print(json.dumps(facts), flush=True)


def command(module, *flags):
    """Runs a command of the project; its status, if it is not 0, is that of this program. Ctrl-C
    reaches both: the trainer saves a checkpoint, and this program waits for it.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    status = subprocess.call([sys.executable, '-m', module, *flags], cwd=measuring.ROOT)
    signal.signal(signal.SIGINT, before)
    if status:
        sys.exit(status)


def train(folder, run, workers, flags):
    """Trains the run and embeds the test; returns the path of the embeddings."""
    out = os.path.join(run, 'embeddings.npz')
    given = NETWORK.split() + [f'--data_path={folder}/train', f'--exp_save_dir={run}', *flags]
    if workers > 1:
        launch = [f'--workers={workers}', f'--log_dir={run}-workers', '--']
        command('trainers.launch', *launch, *given)
    else:
        command('trainers.run', *given)
    images = f'--data_path={folder}/test'
    command('trainers.embed', f'--ckpt_path={run}', images, f'--out={out}', '--device=cpu')
    return out


def write_pixels(folder, path):
    """Embeddings that are the pixels themselves, less the mean of their image."""
    from gitloss import data

    source = data.IMAGES['folder'].open(os.path.join(folder, 'test'), (SIZE, SIZE, 1))
    rows = source.images(np.arange(len(source))).reshape(len(source), -1).astype(np.float32)
    names = np.array([source.name(index) for index in range(len(source))])
    np.savez(path, names=names, embeddings=rows - rows.mean(axis=1, keepdims=True))


def identified(path):
    """{'rank-1': of all probes, 'rank-1 FONT': of those of a font}."""
    names, rows = read_npz(path)
    owners, fonts = (np.array(each) for each in zip(*(name.split('/') for name in names)))
    _, labels = np.unique(owners, return_inverse=True)
    gallery = fonts == GALLERY

    def rate(probes):
        pools = rows[probes], labels[probes], rows[gallery], labels[gallery]
        return retrieval(*pools, ks=(1,)).recall_at[1]

    each = {f'rank-1 {name}': rate(fonts == name) for name in PROBES}
    return {'rank-1': rate(~gallery), **each}


def judge(folder, run, embeddings):
    """Writes OUT/runs/NAME.json: the figures of embeddings of the test."""
    report = f'{run}-verification'
    given = [f'--embeddings={embeddings}', f'--pairs={folder}/pairs.txt', f'--report_path={report}']
    command('trainers.evaluate', *given)
    with open(os.path.join(report, 'verification.json')) as file:
        found = json.load(file)['plain']
    at_far = found['tar_at_far']['0.001']
    figures = {key: found[key] for key in ('accuracy', 'std', 'eer')}
    figures.update(identified(embeddings), tar=at_far and at_far['tar'])
    files.write_atomically(f'{run}.json', json.dumps(figures) + '\n')


def table(folder):
    """The lines of a table of all figures in a folder."""
    heads = ['run', 'accuracy', 'EER', 'TAR@FAR=1e-3', 'rank-1', *PROBES]
    lines = [heads, ['---'] * len(heads)]
    for file in sorted(name for name in os.listdir(folder) if name.endswith('.json')):
        with open(os.path.join(folder, file)) as opened:
            found = json.load(opened)
        keys = ['eer', 'tar', 'rank-1', *(f'rank-1 {font}' for font in PROBES)]
        values = [found[key] for key in keys]
        shown = ['undefined' if value is None else f'{value:.4f}' for value in values]
        accuracy = f'{found["accuracy"]:.4f} +- {found["std"]:.4f}'
        lines.append([file[: -len('.json')], accuracy, *shown])
    return ['| ' + ' | '.join(line) + ' |' for line in lines]


def work(arguments, flags):
    """Does what the flags ask for."""
    folder = os.path.abspath(arguments.out)
    runs = os.path.join(folder, 'runs')
    os.makedirs(runs, exist_ok=True)
    draw_all(folder)
    if arguments.pixels:
        pixels = os.path.join(runs, 'pixels')
        write_pixels(folder, f'{pixels}.npz')
        judge(folder, pixels, f'{pixels}.npz')
    if arguments.run:
        run = os.path.join(runs, arguments.run)
        judge(folder, run, train(folder, run, arguments.workers, flags))
    print('\n'.join(table(runs)))


def main():
    parser = measuring.parser(__doc__)
    parser.allow_abbrev = False  # the others are the trainer's, whole
    parser.add_argument('--out', required=True, help='folder for images, runs and figures')
    parser.add_argument('--run', metavar='NAME', help='train and judge OUT/runs/NAME')
    parser.add_argument('--workers', type=int, default=1, help='of --run, on this machine')
    parser.add_argument('--pixels', action='store_true', help='judge the pixels')
    arguments, flags = parser.parse_known_args()
    if flags and not arguments.run:
        parser.error(f'flags: expected --run with them. Received: {" ".join(flags)}')
    try:
        work(arguments, flags)
    except (OSError, ValueError) as error:
        sys.exit(f'glyphs.py: {reason(error)}')


if __name__ == '__main__':
    main()
