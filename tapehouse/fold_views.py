"""What follows from a fold's fits: the five classes, scaled features, the fractionally differenced series of the chosen d.

Each has a function that fits (on rows of the training window, giving rows of `models.fits`) and one that applies the fit to
the rows from the start of training to the end of the test block. What is applied is known from the end of training on.
"""

import polars as pl

from tapehouse.features.fractional import GRID, column, smallest_d
from tapehouse.features.normalised import IN_PRICE_UNITS, fit_scaler, scale
from tapehouse.features.price import FEATURES
from tapehouse.fits import Fitted
from tapehouse.folds import Fold, fitted_until
from tapehouse.labels.signal import LEAST_SCORES, QUANTILES, classes, fit_quantiles, known_scores

SIGNAL, SCALER, FRACTIONAL, FRACTIONAL_P = "signal_quantile", "scaler", "fractional_d", "fractional_p_value"
KEY = ["symbol", "interval", "decision_at"]


def fit_signal(scores: pl.DataFrame, fold: Fold) -> Fitted:
    """Thresholds of the five classes, by quantile: pooled over the scores of the window that were known by its end.

    Args:
        scores: rows of `labels.signal`. Fewer than 100 known scores are not fitted.
    """
    known = known_scores(scores, fold.train_start, fitted_until(fold))
    values = fit_quantiles(known) if len(known) >= LEAST_SCORES else ()
    return Fitted(SIGNAL, {str(level): cut for level, cut in zip(QUANTILES, values, strict=False)}, len(known))


def signal_classes(scores: pl.DataFrame, thresholds: dict[str, float], fold: Fold) -> pl.DataFrame:
    """Rows of `models.signal_classes`: the class of each score by the fold's thresholds; null without either."""
    cut = [thresholds[str(level)] for level in QUANTILES] if thresholds else None
    named = classes(scores["score"], cut) if cut else pl.Series([None] * scores.height, dtype=pl.String)
    return (
        scores.select(*KEY, "score", "label_end_at", "label_known_at")
        .with_columns(fold=pl.lit(fold.id), signal_class=named, known_at=_after_training("label_known_at", fold))
        .sort(KEY)
    )


def over_close(price: pl.DataFrame) -> pl.DataFrame:
    """The features that a scaler takes: those in units of price over their row's close, the others as they are.

    Pooled over symbols a price has no scale, and across a split not even for one symbol.
    """
    return price.select(
        *KEY, "known_at", *((pl.col(name) / pl.col("close") if name in IN_PRICE_UNITS else pl.col(name)) for name in FEATURES)
    )


def fit_scalers(price: pl.DataFrame) -> list[Fitted]:
    """Mean and deviation of each price feature, pooled over symbols; a feature without a deviation has none."""
    fitted = fit_scaler(over_close(price), FEATURES)
    return [
        Fitted(SCALER, {f"mean {name}": mean, f"deviation {name}": deviation}, observations)
        for name, mean, deviation, observations in fitted.iter_rows()
        if deviation is not None
    ]


def scaled_features(price: pl.DataFrame, scalers: dict[str, float], fold: Fold) -> pl.DataFrame:
    """Rows of `models.scaled`: each price feature less the fold's mean, over its deviation; null where it has none."""
    moments = pl.DataFrame(
        [(name, scalers.get(f"mean {name}"), scalers.get(f"deviation {name}")) for name in FEATURES],
        schema={"column": pl.String, "mean": pl.Float64, "deviation": pl.Float64},
        orient="row",
    )
    rows = scale(over_close(price), moments).with_columns(fold=pl.lit(fold.id), known_at=_after_training("known_at", fold))
    return rows.select("fold", *KEY, "known_at", *(f"{name}_scaled" for name in FEATURES)).sort(KEY)


def fit_fractional(rows: pl.DataFrame) -> list[Fitted]:
    """The smallest d of each symbol whose series passes the ADF test; a symbol of which none does has no d."""
    fits = []
    for row in smallest_d(rows).drop_nulls("d").iter_rows(named=True):
        key = f"{row['symbol']} {row['interval']}"
        fits += [
            Fitted(FRACTIONAL, {key: row["d"]}, row["observations"]),
            Fitted(FRACTIONAL_P, {key: row["p_value"]}, row["observations"]),
        ]
    return fits


def chosen_fractional(rows: pl.DataFrame, orders: dict[str, float], fold: Fold) -> pl.DataFrame:
    """Rows of `models.fractional`: the column of the d that the fold chose for each symbol, null where it chose none."""
    key = pl.col("symbol") + " " + pl.col("interval")
    chosen = rows.with_columns(d=key.replace_strict(orders, default=None, return_dtype=pl.Float64))
    value = pl.coalesce(pl.when(pl.col("d") == d).then(pl.col(column(d))) for d in GRID)
    return (
        chosen.select(*KEY, "known_at", "d", fracdiff=value)
        .with_columns(fold=pl.lit(fold.id), known_at=_after_training("known_at", fold))
        .sort(KEY)
    )


def _after_training(known_at: str, fold: Fold) -> pl.Expr:
    """When a row that a fit was applied to is known: not before the fit. Null where the row itself is not."""
    end = pl.lit(fold.train_end, pl.Datetime("us", "UTC"))
    return pl.when(pl.col(known_at).is_not_null()).then(pl.max_horizontal(pl.col(known_at), end))
