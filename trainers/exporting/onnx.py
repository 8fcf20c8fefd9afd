"""An ONNX file, by the package tf2onnx."""

from __future__ import annotations

from gitloss.files import write_atomically
from trainers.exporting.content import Content
from trainers.exporting.folding import copied
from trainers.exporting.packages import imported

OPSET = 15  # the newest one that onnxruntime for Python 3.7 runs


def write(content: Content, path: str) -> None:
    """Writes the inference for any batch, whose size is called `batch`."""
    facts = content.graph
    tensors = [facts.images, *facts.outputs]
    model, _ = imported('--format=onnx', 'tf2onnx.convert').from_graph_def(
        copied(facts.definition),
        name='gitloss',
        input_names=[facts.images['tensor']],
        output_names=[each['tensor'] for each in facts.outputs],
        opset=OPSET,
        tensors_to_rename={each['tensor']: each['name'] for each in tensors},
    )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = 'batch'
    write_atomically(path, model.SerializeToString(deterministic=True))
