"""Futures that roll and perpetuals that pay funding: what a holder earns where one contract follows another.

A position in a future is held to the close of its roll session, a declared number of sessions before the last one of the
contract, and in the next contract from there on. So the return of the roll session is the old contract's and the return of
the session after it the new one's, close to close; the gap between the two prices is nobody's gain. A continuous series
restates earlier prices to the basis of the contract that is held at a time T: by the product of the ratios new / old of
the two closes at each roll, or by the sum of their differences. Only rolls that had happened by T count: a series as of T
never changes with a later roll, and one as of a later T is another series.

A perpetual never expires. At each funding its longs pay its shorts rate × mark price × quantity × multiplier where the rate
is positive, and are paid where it is negative. Who holds the position just before the instant pays; what is bought at the
instant itself does not.
"""

from datetime import date, datetime
from typing import Literal

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.versions import BAR_KEY, as_known

PRICES = ("open", "high", "low", "close")
Method = Literal["ratio", "difference"]


def contracts_of(instruments: pl.DataFrame, underlying: str) -> pl.DataFrame:
    """The futures on one underlying, as `raw.instruments` (or `staging.universe` of its columns) declares them.

    Returns:
        `symbol`, `expires` (date of the last session) and `sessions_before`, in the order of expiry.

    Raises:
        TapehouseError: a contract without a declared rule for its roll.
    """
    of_it = instruments.filter((pl.col("kind") == "future") & (pl.col("underlying") == underlying))
    found = (
        of_it.select("symbol", expires="valid_to", sessions_before="roll_sessions_before").unique().sort("expires", "symbol")
    )
    without = found.filter(pl.col("sessions_before").is_null())
    if without.height:
        raise TapehouseError(
            f"sources.yaml: universe.{without['symbol'][0]}: no roll is declared; add roll: {{sessions_before_expiry: …}}"
        )
    return found


def roll_schedule(contracts: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """When each contract is held, by the declared rule: known as soon as the contracts are listed.

    Args:
        contracts: `symbol`, `expires`, the date of its last session, and `sessions_before`: a position leaves the contract at
            the close so many sessions before the last one; 0 holds it to the end. In any order.
        sessions: `session` and `close_at`, ascending, reaching over all expiries.

    Returns:
        `symbol`, `expires`, `rolls_on` (the last session on which it is held) and `rolls_at` (the close of that session), in
        the order of expiry.

    Raises:
        TapehouseError: two contracts that roll together, an expiry on no session, or too few sessions before it.
    """
    ordered = contracts.select("symbol", "expires", "sessions_before").sort("expires", "symbol")
    days = sessions["session"]
    rows = []
    for symbol, expires, sessions_before in ordered.rows():
        at = int(days.search_sorted(expires))
        if at >= days.len() or days[at] != expires:
            raise TapehouseError(
                f"contract {symbol} expires on {expires}, which is no session of those given; check the calendar"
            )
        if at < sessions_before:
            raise TapehouseError(f"contract {symbol}: fewer than {sessions_before} sessions are given before {expires}")
        held = at - sessions_before
        rows.append((symbol, expires, days[held], sessions["close_at"][held]))
    schema = {"symbol": pl.String, "expires": pl.Date, "rolls_on": pl.Date, "rolls_at": pl.Datetime("us", "UTC")}
    schedule = pl.DataFrame(rows, schema=schema, orient="row")
    if not schedule["rolls_on"].is_sorted() or schedule["rolls_on"].is_duplicated().any():
        names = schedule["symbol"].to_list()
        raise TapehouseError(f"contracts {names} do not roll one after the other, but on {schedule['rolls_on'].to_list()}")
    return schedule


def continuous(
    bars: pl.DataFrame, contracts: pl.DataFrame, sessions: pl.DataFrame, at: datetime, method: Method = "ratio"
) -> pl.DataFrame:
    """One series out of consecutive contracts, in the price basis of the contract that is held at `at`, as known then.

    Args:
        bars: every version of the contracts' bars: `symbol, interval, session, event_at, known_at, open, high, low, close`.
        contracts, sessions: as in `roll_schedule`.
        at: what was known later changes nothing, and no roll after it is applied.
        method: `ratio` keeps returns, `difference` keeps moves in points; its prices can fall below zero.

    Returns:
        One row a session, to the roll session of the last contract at most: `session`, `event_at`, `symbol` of the contract
        held to its close, raw `open` to `close`, `known_at` (the latest of this bar and of the closes that restate it),
        `adjusted_open` to `adjusted_close`, and `ret`: the simple return from the session before of one who held the right
        contract, null on the first. The session after a roll is compared with the new contract's close on the roll session.

    Raises:
        TapehouseError: the new contract has no bar as of `at` on a session of the roll, so that the step cannot be told.
    """
    schedule = roll_schedule(contracts, sessions)
    known = as_known(bars, BAR_KEY, pl.lit(at)).filter(pl.col("event_at") <= at)
    parts: list[pl.DataFrame] = []
    rolls: list[tuple[str, date]] = []  # of contracts that another follows, as far as they have come
    since = date.min
    for symbol, _, rolls_on, rolls_at in schedule.rows():
        mine = (pl.col("symbol") == symbol) & (pl.col("session") > since) & (pl.col("session") <= rolls_on)
        parts.append(known.filter(mine))
        since = rolls_on
        if rolls_at > at:
            break
        if symbol != schedule["symbol"][-1]:
            rolls.append((symbol, rolls_on))
    held = pl.concat(parts).sort("session") if parts else known.clear()
    rolls = [(symbol, rolls_on) for symbol, rolls_on in rolls if held.height and rolls_on >= held["session"][0]]
    steps = [_step(known, schedule, symbol, rolls_on) for symbol, rolls_on in rolls]
    return _joined(held, dict(zip([rolls_on for _, rolls_on in rolls], steps, strict=True)), method)


def funding_cash_flows(funding: pl.DataFrame, positions: pl.DataFrame, multiplier: float = 1.0) -> pl.DataFrame:
    """What a holder of a perpetual receives (positive) or pays (negative) at each funding.

    Args:
        funding: one version of each funding of one symbol: `event_at`, `rate`, `mark_price`, and `known_at` where it is
            carried along.
        positions: `since` and `quantity` (units; negative for a short), which holds from `since` until the next row.
        multiplier: currency value of one point of price for one unit.

    Returns:
        `funding` in order of `event_at` with `quantity` (held just before the instant) and `cash`, in quote currency.

    Raises:
        TapehouseError: two rows of `funding` or of `positions` share an instant.
    """
    for name, frame, column in (("funding", funding, "event_at"), ("positions", positions, "since")):
        twice = frame.filter(pl.col(column).is_duplicated())
        if twice.height:
            raise TapehouseError(f"{name}: two rows at {twice[column][0]}; keep one version of each")
    held = positions.select(pl.col("since").dt.cast_time_unit("us"), pl.col("quantity").cast(pl.Float64)).sort("since")
    joined = funding.sort("event_at").join_asof(
        held, left_on="event_at", right_on="since", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    joined = joined.drop("since", strict=False).with_columns(pl.col("quantity").fill_null(0.0))
    paid = joined["quantity"].to_numpy() * multiplier * joined["mark_price"].to_numpy() * joined["rate"].to_numpy()
    return joined.with_columns(cash=pl.Series(0.0 - paid))


def _step(known: pl.DataFrame, schedule: pl.DataFrame, symbol: str, rolls_on: date) -> tuple[float, float, datetime]:
    """Closes of the old and of the new contract on the roll session, and when both were known."""
    following = schedule["symbol"][schedule["symbol"].to_list().index(symbol) + 1]
    closes = []
    for name in (symbol, following):
        row = known.filter((pl.col("symbol") == name) & (pl.col("session") == rolls_on))
        if not row.height:
            raise TapehouseError(
                f"roll from {symbol} to {following}: {name} has no bar on {rolls_on}; mend the bar or the rule"
            )
        closes.append((row["close"][0], row["known_at"][0]))
    (old, old_known), (new, new_known) = closes
    return old, new, max(old_known, new_known)


def _joined(held: pl.DataFrame, steps: dict[date, tuple[float, float, datetime]], method: Method) -> pl.DataFrame:
    """The held bars beside the same in the basis of the last contract; factors run from the newest roll to the oldest."""
    days, closes, known = held["session"].to_list(), held["close"].to_numpy(), held["known_at"].to_list()
    factors, shifts, paid = np.ones(len(days)), np.zeros(len(days)), np.full(len(days), np.nan)
    factor, shift, latest = 1.0, 0.0, None
    for t in range(len(days) - 1, -1, -1):
        rolled = steps.get(days[t])
        if rolled is not None:
            old, new, when = rolled
            factor, shift, latest = factor * (new / old), shift + (new - old), max(latest or when, when)
        factors[t], shifts[t] = factor, shift
        known[t] = max(known[t], latest or known[t])
        if t + 1 < len(days):  # what a holder has on the next session's morning is worth this much
            paid[t + 1] = rolled[1] if rolled is not None else closes[t]
    restated = {
        name: held[name].to_numpy() * factors if method == "ratio" else held[name].to_numpy() + shifts for name in PRICES
    }
    return held.select("session", "event_at", "symbol", *PRICES).with_columns(
        pl.Series("known_at", known, dtype=held.schema["known_at"]),
        *(pl.Series(f"adjusted_{name}", values) for name, values in restated.items()),
        pl.Series("ret", closes / paid - 1.0).fill_nan(None),
    )
