"""Corporate actions from the steps of a vendor's adjustment factor.

A vendor's adjusted close is close / factor, where the factor of a day holds every split and dividend after it, also
those that no one could know that day. Its *step* from one bar to the next, factor[t-1] / factor[t], holds only what
went ex between the two; the level is never used. For r new shares per old and a dividend of D per new share there are
two forms:

- `previous_close`: r / (1 - D / (close[t-1] / r)), the textbook form (CRSP, Yahoo);
- `ex_close`: r * (1 + D / close[t]), the form of Quandl's WIKI prices, which the packaged file follows: with it the
  amounts come out as declared (AAPL 2012-08-09: 2.65; MSFT 2004-11-15: 3.08), with the other 0.5 to 2 % beside.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Literal, NamedTuple

import polars as pl

from tapehouse.calendars import TIMESTAMP, local_midnight

# New shares per old. "Nearly" one of these is a split, anything else above one a dividend (or a spin-off's value).
_FORWARD = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 1.5)
SPLIT_RATIOS = tuple(sorted((*_FORWARD, *(1 / ratio for ratio in _FORWARD))))
# A step this near to a ratio is that split; what it exceeds the ratio by is a dividend on the same ex-date.
SPLIT_TOLERANCE = 0.02
# Doubles: a factor of two divisions and a step of one lose a few units in the last place.
DOUBLE_NOISE = 1e-12
# Dividends are declared with at most six decimals; what is finer is arithmetic noise.
AMOUNT_DECIMALS = 6
ACTION_KEY = ("symbol", "kind", "ex_date", "source")
SCHEMA = {
    "symbol": pl.String,
    "kind": pl.String,
    "ex_date": pl.Date,
    "ratio": pl.Float64,
    "amount": pl.Float64,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "source": pl.String,
    "ingested_at": TIMESTAMP,
}
UNEXPLAINED = "the adjustment factor rises by no ratio of a reverse split: neither split nor dividend"


@dataclass(frozen=True)
class Adjustment:
    """How a vendor adjusts: to how many decimals closes and adjusted closes are rounded (`close_decimals` is None where
    the factor was computed from the closes as printed), and which form its dividend factor has."""

    close_decimals: int | None = 2
    adjusted_decimals: int = 2
    dividend_factor: Literal["previous_close", "ex_close"] = "previous_close"


class Close(NamedTuple):
    """One version of a bar's close, in the prices of its day, and the vendor's adjusted close."""

    close: float
    adjusted: float


@dataclass(frozen=True)
class Derived:
    """`actions` has the columns of `raw.corporate_actions` less `ingested_at`.

    `unexplained` has the steps that are neither split nor dividend, because the factor rises by no ratio of a reverse
    split: symbol, source, ex_date, event_at, known_at, step.
    """

    actions: pl.DataFrame
    unexplained: pl.DataFrame


def derive_actions(
    bars: pl.DataFrame,
    start: datetime,
    end: datetime,
    *,
    adjustments: Mapping[str, Adjustment] | None = None,
    calendar: str = "XNYS",
) -> Derived:
    """Splits and dividends with `start` <= 00:00 exchange time of the ex-date < `end`.

    An action at bar t depends on the bars t-1 and t of its symbol and source alone, so any range gives the same rows,
    as long as `bars` reaches back to the last bar before `start`. A symbol's first bar has no action.

    An action is known at 00:00 exchange time of its ex-date. Where a later version of one of the two bars says
    otherwise, that is a further row, known when the version was; an action that turns out not to have been is
    corrected to one without effect (ratio 1, amount 0). Versions known at one instant are taken together.

    Args:
        bars: every version of the bars: symbol, source, session, known_at, ingested_at, event_at, close and
            vendor_adj_close (null where the vendor gives none). Prices in the units of the day.
        start, end: range of `event_at`, UTC.
        adjustments: how each source adjusts; `Adjustment()` for others.
        calendar: exchange calendar, for its time zone.

    Returns:
        A `Derived`. `ratio` is new shares per old (1 for a dividend); `amount` is cash for one share held before the
        ex-date, in that day's currency and price basis (0 for a split). `ingested_at` is when the later of the two
        versions that say so arrived.
    """
    bars = bars.filter(pl.col("vendor_adj_close").is_not_null()).with_columns(
        opened_at=local_midnight(pl.col("session"), calendar)
    )
    actions: list[tuple] = []
    unexplained: list[tuple] = []
    columns = ["session", "known_at", "ingested_at", "event_at", "opened_at", "close", "vendor_adj_close"]
    for (symbol, source), group in bars.sort("symbol", "source").group_by(["symbol", "source"], maintain_order=True):
        adjustment = (adjustments or {}).get(source, Adjustment())
        rows = group.sort("known_at", "session").select(columns).rows()
        for ex_date, midnight, known_at, arrived, found in _steps(rows, adjustment):
            if isinstance(found, float):
                unexplained.append((symbol, source, ex_date, midnight, known_at, found))
            else:
                actions += [(symbol, kind, ex_date, *found[kind], midnight, known_at, source, arrived) for kind in found]
    schema = {name: SCHEMA[name] for name in ("symbol", "source", "ex_date", "event_at", "known_at")}
    inside = (pl.col("event_at") >= start) & (pl.col("event_at") < end)
    return Derived(
        actions=pl.DataFrame(actions, schema=SCHEMA, orient="row").filter(inside).sort(*ACTION_KEY, "known_at"),
        unexplained=pl.DataFrame(unexplained, schema=schema | {"step": pl.Float64}, orient="row")
        .filter(inside)
        .sort("symbol", "source", "ex_date", "known_at"),
    )


def unexplained_as_rejects(unexplained: pl.DataFrame) -> pl.DataFrame:
    """`Derived.unexplained` in the shape of `raw.quarantine`, filed under the ex-date, without `ingested_at`."""
    return unexplained.select(
        pl.lit("raw.corporate_actions").alias("table_name"),
        "source",
        pl.format("raw.bars {} {} {}", "symbol", "ex_date", "known_at").alias("origin"),
        "symbol",
        "event_at",
        pl.col("event_at").alias("filed_at"),
        pl.lit(UNEXPLAINED).alias("reason"),
        pl.struct("symbol", pl.col("ex_date").cast(pl.String), "step").struct.json_encode().alias("record"),
    )


def rounding_noise(before: Close, after: Close, adjustment: Adjustment) -> float:
    """Largest relative error of a factor step that rounding can cause, when no action took place.

    Half a unit in the last printed decimal, relative to each price it is printed for, summed over the two bars. With
    two decimals on an adjusted close of 1.00 this is 1 %: smaller dividends cannot be told from rounding.
    """
    noise = 0.5 * 10.0**-adjustment.adjusted_decimals * (1 / before.adjusted + 1 / after.adjusted) + DOUBLE_NOISE
    if adjustment.close_decimals is not None:
        noise += 0.5 * 10.0**-adjustment.close_decimals * (1 / before.close + 1 / after.close)
    return noise


def classify_step(before: Close, after: Close, adjustment: Adjustment) -> dict[str, tuple[float, float]] | float:
    """What went ex between two consecutive bars of one symbol: kind -> (ratio, amount), empty for nothing.

    Returns:
        Or the step itself, where it is inexplicable: the factor rises, by no ratio of a reverse split.
    """
    noise = rounding_noise(before, after, adjustment)
    step = (before.close / before.adjusted) / (after.close / after.adjusted)
    if abs(step - 1) <= noise:
        return {}
    ratio = min(SPLIT_RATIOS, key=lambda ratio: abs(step / ratio - 1))
    found: dict[str, tuple[float, float]] = {}
    if abs(step / ratio - 1) <= max(SPLIT_TOLERANCE, noise):
        found["split"] = (ratio, 0.0)
    else:
        ratio = 1.0
    rest = step / ratio
    if rest > 1 + noise:
        of_old_share = before.close * (1 - 1 / rest)
        amount = of_old_share if adjustment.dividend_factor == "previous_close" else ratio * after.close * (rest - 1)
        if round(amount, AMOUNT_DECIMALS) > 0:
            found["dividend"] = (1.0, round(amount, AMOUNT_DECIMALS))
    return found if found or step > 1 else step


def _steps(rows: list[tuple], adjustment: Adjustment):
    """(ex_date, its midnight, known_at, ingested_at, actions or step) in the order in which they became known.

    `rows` are the versions of one symbol's bars by (known_at, session). The bars known so far are kept in order, so
    that a bar that arrives late finds its neighbours.
    """
    known: dict[date, Close] = {}
    arrived: dict[date, datetime] = {}
    midnight: dict[date, datetime] = {}
    timeline: list[date] = []
    said: dict[date, dict[str, tuple[float, float]]] = {}
    for known_at, versions in groupby(rows, key=lambda row: row[1]):
        touched: set[date] = set()
        on_time: set[date] = set()
        for session, _, ingested_at, event_at, opened_at, close, adjusted in versions:
            if session not in known:
                _insert(timeline, session)
                midnight[session] = opened_at
                if known_at <= event_at:
                    on_time.add(session)
            known[session] = Close(close, adjusted)
            arrived[session] = ingested_at
            touched.add(session)
        for ex_date, previous in _pairs(timeline, touched):
            before, after = known[previous], known[ex_date]
            found = classify_step(before, after, adjustment)
            when = midnight[ex_date] if ex_date in on_time else max(known_at, midnight[ex_date])
            said_at = midnight[ex_date], when, max(arrived[previous], arrived[ex_date])
            if isinstance(found, float):
                yield ex_date, *said_at, found
                found = {}
            slack = rounding_noise(before, after, adjustment) * before.close
            change = _difference(said.get(ex_date, {}), found, slack)
            if change:
                yield ex_date, *said_at, change
                said[ex_date] = said.get(ex_date, {}) | change


def _difference(said: dict, found: dict, slack: float) -> dict[str, tuple[float, float]]:
    """Actions of `found` that `said` has not (amounts are equal within `slack`), and the withdrawal of the rest."""
    withdrawn = {kind: (1.0, 0.0) for kind in said if kind not in found and said[kind] != (1.0, 0.0)}
    changed = {
        kind: terms
        for kind, terms in found.items()
        if kind not in said or terms[0] != said[kind][0] or abs(terms[1] - said[kind][1]) > slack + 10.0**-AMOUNT_DECIMALS
    }
    return withdrawn | changed


def _insert(timeline: list[date], session: date) -> None:
    if not timeline or session > timeline[-1]:
        timeline.append(session)  # in nearly every case: bars arrive in order
    else:
        insort(timeline, session)


def _pairs(timeline: list[date], touched: set[date]):
    """(ex_date, the bar before it) for each touched bar and the bar after it, in order."""
    positions = sorted({at + step for at in (bisect_left(timeline, s) for s in touched) for step in (0, 1)})
    return [(timeline[at], timeline[at - 1]) for at in positions if 0 < at < len(timeline)]
