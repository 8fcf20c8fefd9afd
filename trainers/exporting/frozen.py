"""A frozen graph, for CANN's atc, TensorFlow 1.15 and other readers of GraphDefs."""

from __future__ import annotations

from gitloss.files import write_atomically
from trainers.exporting.content import Content


def write(content: Content, path: str) -> None:
    """Writes the GraphDef for --export_batch images per call."""
    write_atomically(path, content.fixed.definition.SerializeToString(deterministic=True))
