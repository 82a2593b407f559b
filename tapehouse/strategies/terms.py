"""The terms on which an account trades: ticks and lots, currencies, what cash earns, and what is left of a delisted share."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl

from tapehouse.backtest.panel import Panel
from tapehouse.errors import TapehouseError
from tapehouse.strategies.sections import CostsSection

PERCENT = 0.01


def on_terms(
    panel: Panel, costs: CostsSection, instruments: pl.DataFrame, series: pl.DataFrame | None, known_by: datetime
) -> Panel:
    """`panel` with what `costs` declares.

    Args:
        instruments: rows of raw.instruments; each symbol's latest ticker, in the version known by `known_by`, counts. A
            symbol that has ended leaves at the session after its last one.
        series: rows of features.macro_series, where a rate or a currency is declared.

    Raises:
        TapehouseError: a symbol that raw.instruments does not have, one in another currency without a series, or a series
            of which nothing was known before a session.
    """
    known = instruments.filter(pl.col("known_at") <= known_by).sort("symbol", "valid_from", "known_at")
    latest = {row["symbol"]: row for row in known.group_by("symbol", maintain_order=True).last().iter_rows(named=True)}
    if missing := [symbol for symbol in panel.symbols if symbol not in latest]:
        raise TapehouseError(f"raw.instruments has no row for {missing} by {known_by:%Y-%m-%d}; declare them in sources.yaml")
    fx, delisting = panel.fx.copy(), panel.delisting.copy()
    for s, symbol in enumerate(panel.symbols):
        own = latest[symbol]
        if own["currency"] != costs.currency:
            if own["currency"] not in costs.currency_series:
                raise TapehouseError(
                    f"{symbol} is priced in {own['currency']}, the account kept in {costs.currency}: name the series of its "
                    f"price under costs.currency_series, as in {{{own['currency']}: DEXUSEU}}"
                )
            fx[:, s] = level_before(series, costs.currency_series[own["currency"]], panel)
        if own["valid_to"] is not None:
            gone = next((t for t, day in enumerate(panel.sessions) if day > own["valid_to"]), None)
            if gone is not None:
                delisting[gone, s] = costs.delisting_return
    rows = [latest[symbol] for symbol in panel.symbols]
    return replace(
        panel,
        fx=fx,
        delisting=delisting,
        tick=np.array([row["tick_size"] for row in rows]) if costs.ticks else panel.tick,
        lot=np.array([row["lot_size"] for row in rows]) if costs.whole_lots else panel.lot,
        rate=level_before(series, costs.rate_series, panel) * PERCENT if costs.rate_series else panel.rate,
    )


def plain_terms(panel: Panel, instruments: pl.DataFrame, known_by: datetime) -> Panel:
    """`panel` on the terms of an account that declares none: in the one currency of its symbols, delisted shares paid out.

    So the baselines lose what has left the exchange as strategies do, at its last close.

    Raises:
        TapehouseError: symbols of several currencies, or one that raw.instruments does not have.
    """
    own = instruments.filter(pl.col("symbol").is_in(list(panel.symbols)) & (pl.col("known_at") <= known_by))
    currencies = sorted(own["currency"].unique())
    if len(currencies) > 1:
        raise TapehouseError(
            f"the universe is priced in {currencies}, and the account of a recipe is kept in one currency: give the "
            "instruments of each currency a warehouse of their own"
        )
    return on_terms(panel, CostsSection(currency=currencies[0] if currencies else "USD"), instruments, None, known_by)


def level_before(series: pl.DataFrame | None, name: str, panel: Panel) -> np.ndarray:
    """Level of a series for each session of `panel`, as known at the last decision of an earlier day, (sessions,)."""
    rows = None if series is None else series.filter(pl.col("series_id") == name, pl.col("level").is_not_null())
    if rows is None or rows.is_empty():
        raise TapehouseError(f"features.macro_series has no level of {name!r} around {panel.sessions[0]}; declare the series")
    days = (
        rows.sort("decision_at")
        .select(day=pl.col("decision_at").dt.date(), level="level")
        .unique("day", keep="last", maintain_order=True)
    )
    wanted = pl.DataFrame({"day": panel.sessions}, schema={"day": pl.Date})
    found = wanted.join_asof(days, on="day", strategy="backward", allow_exact_matches=False)["level"]
    if found.null_count():
        first = wanted.filter(found.is_null())["day"][0]
        raise TapehouseError(f"no level of {name} was known before {first}; start the block later, or the series earlier")
    return found.to_numpy()
