"""The small market of `classical` as policies read it: price rows that foretell the label, and a teacher's theses on them."""

from datetime import timedelta

import polars as pl

from tests.tapehouse.classical import LABELS, POINTS, make_inputs, recipe

PRICE, THESES, COMPANY = "features.price", "datasets.theses", "features.company"
OPTIMISER = {"learning_rate": 0.005}
EVALUATION = {"every": 20, "rows": 64, "patience": None}
ENCODER = {
    "window": 4,
    "width": 8,
    "heads": 2,
    "layers": 1,
    "hidden": 16,
    "dropout": 0.1,
    "features": ["momentum_30d", "noise"],
}
SECTIONS = {"trend": True, "risk": True, "market": True, "macro": False, "company": False, "news": False}


def world() -> dict[str, pl.DataFrame]:
    """Inputs of all three methods, by table."""
    inputs = make_inputs()
    points = inputs[POINTS]
    price = points.with_columns(known_at=pl.col("decision_at") - timedelta(minutes=5))
    company = points.select(
        "symbol", "interval", "decision_at",
        pl.lit(None, pl.Float64).alias("net_margin"),
        pl.lit(None, pl.Int64).alias("insider_buys_90d"),
        pl.lit(None, pl.Int64).alias("insider_sells_90d"),
        return_on_assets=pl.when(pl.col("symbol") == "A").then(0.1),
    )  # fmt: skip
    signal = pl.col("momentum_30d")
    unknown = dict.fromkeys(("sentiment", "insider_buying", "divergence"), pl.lit(None, pl.Boolean))
    claims = {
        "quality": pl.when(pl.col("symbol") == "A").then(True),
        "momentum": signal > 0,
        "volatility": pl.col("noise") > 0,
        "momentum_10d": signal > -0.2,
        "momentum_30d": signal > 0,
        **unknown,
    }
    actions = ("strong_sell", "sell", "hold", "buy", "strong_buy")
    place = sum((signal > cut).cast(pl.Int64) for cut in (-1.5, -0.4, 0.4, 1.5))
    theses = points.select(
        "symbol", "interval", "decision_at",
        pl.lit("teacher").alias("origin"),
        place.replace_strict(dict(enumerate(actions)), return_dtype=pl.String).alias("action"),
        **{f"section_{name}": pl.lit(holds) for name, holds in SECTIONS.items()},
        **{f"claim_{name}": holds for name, holds in claims.items()},
    )  # fmt: skip
    known = inputs[LABELS].filter(side=0).select("symbol", "interval", "decision_at", "label_known_at")
    theses = theses.join(known, on=["symbol", "interval", "decision_at"], maintain_order="left")
    return {POINTS: points, LABELS: inputs[LABELS], PRICE: price, THESES: theses, COMPANY: company}


def sequence(**fields):
    stage = {"steps": 80, "batch_size": 32}
    told = {"encoder": ENCODER, "training": stage, "optimiser": OPTIMISER, "evaluation": EVALUATION, "seed": 3}
    return recipe("sequence", **(told | fields))


def contrastive(**fields):
    stages = {"pretraining": {"steps": 60, "batch_size": 32}, "probe": {"steps": 100, "batch_size": 64}}
    return recipe(
        "contrastive",
        **({"encoder": ENCODER, "optimiser": {"learning_rate": 0.01}, "evaluation": EVALUATION} | stages | fields),
    )


def ranking(**fields):
    stages = {"supervised": {"steps": 60, "batch_size": 32}, "reinforce": {"steps": 60, "batch_size": 32}}
    told = {"width": 16, "optimiser": OPTIMISER, "evaluation": EVALUATION, "seed": 5, "features": ["momentum_30d", "noise"]}
    return recipe("ranking", **(told | stages | fields))
