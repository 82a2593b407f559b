"""What a trained policy says of decision points, by its ONNX file and the scaler of its fold; torch is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.networks import onnx_file
from tapehouse.networks.scaler import Scaler
from tapehouse.networks.windows import sorted_rows, windows_of
from tapehouse.predictions import CHANCES, KEYS


def window_chances(price: pl.DataFrame, points: pl.DataFrame, length: int, folder: Path) -> pl.DataFrame:
    """`KEYS` and `CHANCES` of each decision of `points`, from the windows of `features.price` that end in it."""
    windows = windows_of(sorted_rows(price), points, Scaler.load(folder), length)
    batches = ({"windows": rows, "there": there} for rows, there in windows.slices())
    return with_chances(points, onnx_file.run(folder, batches))


def row_chances(values: np.ndarray, points: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """`KEYS` and `CHANCES` of each decision of `points`, from its own row of scaled features (n, F)."""
    return with_chances(points, onnx_file.run(folder, [{"rows": values}]))


def with_chances(points: pl.DataFrame, chances: np.ndarray) -> pl.DataFrame:
    """`KEYS` of `points` and their probabilities (n, 3)."""
    values = chances.astype(np.float64)
    return points.select(KEYS).with_columns(pl.Series(name, values[:, place]) for place, name in enumerate(CHANCES))
