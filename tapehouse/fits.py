"""What is fitted for a fold on its training window alone, as rows of `models.fits`: one number each, by kind and key.

Of a fold with a validation tail nothing is fitted on the tail.

- `hmm`, the market's hidden states (`tapehouse.hmm`): `mean.<state>.<input>`, `covariance.<state>.<input>.<input>`,
  `transition.<state>.<state>`, `log_likelihood`, `iterations`.
- `signal_quantile`, the thresholds of the five classes (`tapehouse.labels.signal`): `0.03`, `0.15`, `0.53`, `0.85`.
- `scaler`, of the price features (`tapehouse.features.normalised`): `mean <feature>`, `deviation <feature>`.
- `fractional_d` and `fractional_p_value`, the order of differencing that is chosen for a symbol and the p-value of its test
  (`tapehouse.features.fractional`): `<symbol> <interval>`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold, fitted_until

SCHEMA = {
    "fold": pl.String,
    "kind": pl.String,
    "key": pl.String,
    "value": pl.Float64,
    "rows": pl.Int64,
    "known_at": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class Fitted:
    """One fit: its values by key, and how many rows they were fitted on."""

    kind: str
    values: Mapping[str, float]
    rows: int


def fit_rows(fold: Fold, fits: Iterable[Fitted]) -> pl.DataFrame:
    """Rows of `models.fits` for one fold; known when the last rows that may be fitted on are, whatever rows they needed."""
    rows = [
        {"fold": fold.id, "kind": fit.kind, "key": key, "value": value, "rows": fit.rows, "known_at": fitted_until(fold)}
        for fit in fits
        for key, value in fit.values.items()
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def values_of(fits: pl.DataFrame, fold: Fold, kind: str) -> dict[str, float]:
    """Key to value of one kind of fit of a fold; empty where the fold had too few rows for it.

    Raises:
        TapehouseError: the fold has no fits at all.
    """
    own = fits.filter(fold=fold.id)
    if own.is_empty():
        raise TapehouseError(f"models.fits: no rows of fold {fold.id}; make them first (`tapehouse run --select models/fits`)")
    return dict(own.filter(kind=kind).select("key", "value").iter_rows())
