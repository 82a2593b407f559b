"""Counts and a lexicon's sentiment of the news, filings and theses about a symbol that are known at a decision.

A record counts in the version that is known at the decision, while its publication lies in the window before it. All that is
added are whole numbers (records, words), so that no order of summing can change a bit. The lexicon is small, of single words,
without grammar: a measure to compare with, and to do without a model. An embedding has its place beside it.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
from numba import njit

from tapehouse.versions import microseconds

LEXICON = "lexicon_v1.txt"
WORD = r"[a-z]+"
ACTIONS = {"strong_sell": -2, "sell": -1, "hold": 0, "buy": 1, "strong_buy": 2}
NEWS_DAYS, FILING_DAYS, THESIS_DAYS = (1, 7, 30), (30, 90), (30,)
DAY_US = 86_400_000_000
UTC_DATETIME = pl.Datetime("us", "UTC")
KEY = ["symbol", "interval", "decision_at"]
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "known_at": UTC_DATETIME,
    **{f"news_{days}d": pl.Int64 for days in NEWS_DAYS},
    **{f"news_sentiment_{days}d": pl.Float64 for days in NEWS_DAYS[1:]},
    **{f"filings_{days}d": pl.Int64 for days in FILING_DAYS},
    "filing_sentiment_90d": pl.Float64,
    "theses_30d": pl.Int64,
    "thesis_action_30d": pl.Float64,
    "thesis_sentiment_30d": pl.Float64,
    "embedding": pl.List(pl.Float64),
}
COUNTED = ("records", "positive", "negative", "action")


def text_features(decisions: pl.DataFrame, news: pl.DataFrame, filings: pl.DataFrame, theses: pl.DataFrame) -> pl.DataFrame:
    """Text features of every decision.

    Args:
        decisions: `symbol, interval, decision_at, known_at` (of the decision's price).
        news, filings: `raw.news`, `raw.filings`. theses: `staging.theses`. All versions with `event_at` in the 90 days before
            the decisions.

    Returns:
        One row for each decision, sorted; columns and units as in `checks/features/text.yaml`. A count is 0 where nothing was
        published, a sentiment null where no word of the lexicon was. `known_at` is the latest of the records that count, of
        the price where there are none. `embedding` is null: no model has filled it.
    """
    sections = _records(filings, ["symbol", "accession", "section", "source"], pl.col("text"))
    kinds = {
        "news": _records(news, ["symbol", "article_id", "source"], _joined("headline", "summary")),
        "section": sections,
        # A filing is one, however many sections it has; it is known with the first of them.
        "filing": _counted_once(filings, ["symbol", "accession", "source"]),
        "thesis": _records(theses, ["symbol", "thesis_id"], _joined("reasoning", "support"), pl.col("action")),
    }
    parts = [pl.DataFrame(schema=SCHEMA)]
    for (symbol,), own in decisions.sort(KEY).partition_by("symbol", as_dict=True, maintain_order=True).items():
        parts.append(_of_symbol(own, {kind: rows.filter(symbol=symbol) for kind, rows in kinds.items()}))
    return pl.concat(parts).sort(KEY)


def _of_symbol(decisions: pl.DataFrame, kinds: dict[str, pl.DataFrame]) -> pl.DataFrame:
    at = microseconds(decisions["decision_at"])
    news, section, filing, thesis = (
        {days: _within(kinds[kind], at, days) for days in spans}
        for kind, spans in (("news", NEWS_DAYS), ("section", (90,)), ("filing", FILING_DAYS), ("thesis", THESIS_DAYS))
    )
    latest = np.full(at.size, np.iinfo(np.int64).min)
    for kind, days in (("news", max(NEWS_DAYS)), ("section", 90), ("filing", max(FILING_DAYS)), ("thesis", 30)):
        latest = np.maximum(latest, latest_in_force(*_spans(kinds[kind], days), at, days * DAY_US))
    price = microseconds(decisions["known_at"])
    columns = {
        "known_at": pl.Series(np.where(latest > np.iinfo(np.int64).min, latest, price)).cast(UTC_DATETIME),
        **{f"news_{days}d": pl.Series(news[days]["records"]) for days in NEWS_DAYS},
        **{f"news_sentiment_{days}d": _sentiment(news[days]) for days in NEWS_DAYS[1:]},
        **{f"filings_{days}d": pl.Series(filing[days]["records"]) for days in FILING_DAYS},
        "filing_sentiment_90d": _sentiment(section[90]),
        "theses_30d": pl.Series(thesis[30]["records"]),
        "thesis_action_30d": _ratio(thesis[30]["action"], thesis[30]["records"]),
        "thesis_sentiment_30d": _sentiment(thesis[30]),
        "embedding": pl.Series([None] * at.size, dtype=pl.List(pl.Float64)),
    }
    return decisions.select(KEY).with_columns(**columns).select(list(SCHEMA))


def _records(rows: pl.DataFrame, key: Sequence[str], text: pl.Expr, action: pl.Expr | None = None) -> pl.DataFrame:
    """Every version of every record with its words counted, when it is known, and when the next version is."""
    words = text.str.to_lowercase().str.extract_all(WORD)
    good, bad = lexicon()
    counted = rows.with_columns(words=words).with_columns(
        records=pl.lit(1, pl.Int64),
        positive=_occurrences(good),
        negative=_occurrences(bad),
        action=(pl.lit("hold") if action is None else action).replace_strict(ACTIONS, return_dtype=pl.Int64),
    )
    return _with_next(counted, key)


def _occurrences(words: frozenset[str]) -> pl.Expr:
    known = pl.element().is_in(pl.Series(sorted(words)).implode())
    return pl.col("words").list.eval(known.cast(pl.Int64)).list.sum().cast(pl.Int64)


def _counted_once(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    nothing = {name: pl.lit(0, pl.Int64) for name in COUNTED[1:]}
    first = rows.sort(*key, "known_at").unique(key, keep="first", maintain_order=True)
    return _with_next(first.with_columns(records=pl.lit(1, pl.Int64), **nothing), key)


def _with_next(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return rows.sort(*key, "known_at").select(
        "symbol", "event_at", "known_at", *COUNTED, next_known_at=pl.col("known_at").shift(-1).over(key)
    )


def _spans(rows: pl.DataFrame, days: int) -> tuple[np.ndarray, np.ndarray]:
    """From when, and until when, each version counts in a window of so many days, us; sorted as `rows` are."""
    begin = microseconds(rows["known_at"])
    end = pl.min_horizontal(pl.col("event_at") + timedelta(days=days), "next_known_at")
    return begin, microseconds(rows.select(end).to_series())


def _within(rows: pl.DataFrame, at: np.ndarray, days: int) -> dict[str, np.ndarray]:
    """Of each counted column the sum over the versions that count at each instant."""
    begin, end = _spans(rows, days)
    counts = end > begin
    begin, end = begin[counts], end[counts]
    found = {}
    opened, closed = np.argsort(begin, kind="stable"), np.argsort(end, kind="stable")
    so_far = np.searchsorted(begin[opened], at, side="right"), np.searchsorted(end[closed], at, side="right")
    for name in COUNTED:
        values = rows[name].to_numpy()[counts]
        sums = [np.concatenate([[0], np.cumsum(values[order])]) for order in (opened, closed)]
        found[name] = sums[0][so_far[0]] - sums[1][so_far[1]]
    return found


@njit(cache=True)
def latest_in_force(begin, end, at, longest):
    """(m,) the latest `begin` of the spans [begin, end) (n,) that each instant of `at` lies in; the lowest integer for none.

    No span is longer than `longest`.
    """
    out = np.full(at.size, np.iinfo(np.int64).min)
    order = np.argsort(begin)
    ordered = begin[order]
    for j in range(at.size):
        for i in range(np.searchsorted(ordered, at[j], side="right") - 1, -1, -1):
            if ordered[i] <= at[j] - longest:
                break
            if end[order[i]] > at[j]:
                out[j] = ordered[i]
                break
    return out


def _joined(first: str, second: str) -> pl.Expr:
    return pl.col(first).fill_null("") + " " + pl.col(second).fill_null("")


def _sentiment(sums: dict[str, np.ndarray]) -> pl.Series:
    return _ratio(sums["positive"] - sums["negative"], sums["positive"] + sums["negative"])


def _ratio(over: np.ndarray, under: np.ndarray) -> pl.Series:
    values = np.divide(over, under, out=np.full(over.size, np.nan), where=under > 0)
    return pl.Series(values, nan_to_null=True)


@lru_cache(maxsize=1)
def lexicon() -> tuple[frozenset[str], frozenset[str]]:
    """The words for what is good, and for what is bad."""
    lines = (Path(__file__).parent / LEXICON).read_text().splitlines()
    marked = [line.split() for line in lines if line and not line.startswith("#")]
    good, bad = (frozenset(word for mark, word in marked if mark == sign) for sign in "+-")
    return good, bad
