"""How far ahead of a decision its label looks, and whether the table's declaration reads that far."""

from datetime import date, datetime, timedelta

import polars as pl
from dateutil.relativedelta import relativedelta

from tapehouse.errors import TapehouseError


def require_lookahead(table: str, sessions: pl.DataFrame, end: datetime, months: int, horizon: int | timedelta) -> None:
    """Refuse a horizon that ends outside what is read: the last labels of a month would be other ones in a longer range.

    Args:
        table: the table that is being made.
        sessions: `session`, `open_at`, `close_at` of the exchange.
        end: the end of the range that is being made; the last decisions lie just before it.
        months: what the table declares to look ahead.
        horizon: sessions from the entry, its own being the first; or the time from the entry's open.

    Raises:
        TapehouseError: names the table, the horizon and what to raise.
    """
    limit = end + relativedelta(months=months)
    following = sessions.filter(pl.col("open_at") >= end)
    if isinstance(horizon, int):
        closes = following["close_at"]
        reached = closes[horizon - 1] if len(closes) >= horizon else None
    else:
        opens = following["open_at"]
        reached = opens[0] + horizon if len(opens) else None
    # What the calendar does not know yet is not stored either: no row can read it.
    if reached is not None and reached >= limit:
        raise TapehouseError(
            f"{table}: a decision before {end:%Y-%m-%d} has a label that ends at {reached:%Y-%m-%d %H:%M}, but only {months} "
            "months ahead are read; raise lookahead_months of its reads"
        )


def sessions_around(sessions: pl.DataFrame, first: date | None, last: date | None, horizon: int | timedelta) -> pl.DataFrame:
    """The sessions that labels of decisions from `first` to `last` can speak of, so that one month costs one month's work.

    Args:
        sessions: `session`, `open_at`, `close_at`, ascending.
        first, last: sessions of the first and the last decision; None without any, and then one session is kept.
        horizon: sessions from the entry, its own being the first; or the time from the entry's open.

    Returns:
        Contiguous rows of `sessions`, one more than needed after the last horizon: whether that has ended can be told.
    """
    if first is None or last is None:
        return sessions.head(1)
    days = sessions["session"]
    begin, entered = days.search_sorted(first, side="left"), days.search_sorted(last, side="right")
    if isinstance(horizon, int):
        end = entered + horizon
    elif entered < len(sessions):
        end = sessions["close_at"].search_sorted(sessions["open_at"][entered] + horizon, side="right")
    else:
        end = entered
    return sessions.slice(begin, max(int(end), int(entered)) + 1 - begin)
