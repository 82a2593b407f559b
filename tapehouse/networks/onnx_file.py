"""Networks as ONNX files: what answers at a decision point, without the library that trained it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    import torch

FILE: Final = "model.onnx"
OUTPUT: Final = "chances"
PARITY: Final = 1e-5  # largest difference of a probability from the network's own
COMPARED: Final = 64  # rows on which a fit compares the two
MOST_ROWS: Final = 1 << 20


def export(network: torch.nn.Module, example: Mapping[str, torch.Tensor], folder: Path) -> float:
    """Write `model.onnx`, for any number of rows, and return the largest difference of its answers from the network's.

    The file holds no names of source files or lines: equal weights give equal bytes.

    Args:
        example: inputs by the name that they have in `forward`, (n, ...) each, n at least 2; answers are compared on all of
            them and on the first alone.

    Raises:
        TapehouseError: an answer is further away than `PARITY`.
    """
    import torch

    network.eval()
    rows = torch.export.Dim("rows", min=1, max=MOST_ROWS)
    logger, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        logger.setLevel(logging.ERROR)
        try:
            made = torch.onnx.export(
                network, kwargs=dict(example), dynamo=True, verbose=False, output_names=[OUTPUT],
                input_names=list(example), dynamic_shapes={name: {0: rows} for name in example},
            )  # fmt: skip
        finally:
            logger.setLevel(level)
    model = made.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for part in (*model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    path = folder / FILE
    path.write_bytes(model.SerializeToString(deterministic=True))
    farthest = 0.0
    for count in (1, len(next(iter(example.values())))):
        some = {name: values[:count] for name, values in example.items()}
        with torch.no_grad():
            want = network(**some).numpy()
        got = run(folder, [{name: values.numpy() for name, values in some.items()}])
        farthest = max(farthest, float(np.abs(got - want).max()))
    if not farthest <= PARITY:
        raise TapehouseError(f"{path}: answers differ from the network's by {farthest:.2e}, more than {PARITY:.0e}")
    return farthest


def run(folder: Path, batches: Iterable[Mapping[str, np.ndarray]]) -> np.ndarray:
    """The answers (rows, 3) of a folder's network to batches of inputs by name, on one thread.

    Raises:
        TapehouseError: the folder holds no network.
    """
    import onnxruntime

    path = folder / FILE
    if not path.is_file():
        raise TapehouseError(f"{path}: no such file; materialise the model again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # sums in one order
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    answers = [session.run(None, dict(batch))[0] for batch in batches]
    return np.concatenate(answers) if answers else np.empty((0, 3), np.float32)
