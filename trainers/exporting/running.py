"""python -m trainers.exporting.running IMAGES.npy OUT.npz MODEL ...: outputs of exported models.

The process of the parity check: OUT.npz has `I/embeddings`, `I/logits`, `I/predictions` and
`I/runtime` of the I-th model.
"""

from __future__ import annotations

import sys
from typing import Any, Sequence

import numpy as np

from gitloss.errors import reason
from trainers.exporting.runtimes import open_model

_BATCH = 16


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    images_path, out, *paths = arguments
    images = np.load(images_path)
    found: dict[str, Any] = {}
    try:
        for number, path in enumerate(paths):
            with open_model(path, _BATCH) as model:
                found[f'{number}/runtime'] = np.array(model.name)
                for name, values in zip(model.outputs, model(model.outputs, images)):
                    found[f'{number}/{name}'] = values
    except (ValueError, OSError) as error:
        sys.stderr.write(reason(error) + '\n')
        return 1
    np.savez(out, **found)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
