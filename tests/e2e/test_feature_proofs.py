"""Promises 2 and 3 for regimes, macro, text and book features; a planted leak of each is caught."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.frames import POLARS_TYPES
from tapehouse.hashing import frame_hash
from tapehouse.leakage import around, find_leaks, mutate
from tapehouse.scratch import read_raw, rebuild
from tests.house import House, copy_project

BY_MONTH = ["features.regime", "features.macro", "features.macro_series", "features.text"]
CUTS = [datetime(2005, 2, 9, 17, tzinfo=UTC), datetime(2005, 3, 17, 21, 5, tzinfo=UTC)]
FOLDS = "{min_train_sessions: 50, test_sessions: 15, min_test_sessions: 10, purge_sessions: 2, count: 2}\n"
DAY_CUT = datetime(2013, 3, 26, 14, 30, 17, tzinfo=UTC)
LEAKS = {
    # Joined on when it happened, not on when it was published.
    "features.macro_peek": """
        -- One row per (interval, decision_at): the oil price of the day before.
        -- lookback: 1 months
        -- lookahead: 1 months
        with

        decisions as (
            select distinct interval, decision_at from features.price
            where decision_at >= $start and decision_at < $end
        ),

        oil as (select event_at, value from staging.macro where series_id = 'DCOILWTICO')

        select decisions.interval, decisions.decision_at, oil.value
        from decisions
        asof left join oil on decisions.decision_at >= oil.event_at
        """,
    # The words that an article has today.
    "features.text_peek": """
        -- One row per (symbol, decision_at): the longest headline of the week before, as it reads today.
        -- lookback: 1 months
        with

        decisions as (
            select symbol, decision_at from features.price
            where decision_at >= $start and decision_at < $end
        )

        select decisions.symbol, decisions.decision_at, max(length(news.headline)) as longest
        from decisions
        inner join raw.news as news
            on decisions.symbol = news.symbol
            and news.event_at <= decisions.decision_at
            and news.event_at > decisions.decision_at - interval 7 day
        group by decisions.symbol, decisions.decision_at
        """,
    # The quotes of the minute after.
    "features.book_peek": """
        -- One row per (symbol, market, source, decision_at): how large the best bid will be.
        -- cadence: days
        -- lookahead: 1 days
        with

        led as (
            select symbol, market, source, known_at as decision_at,
                lead(bid_size, 60) over (partition by symbol, market, source order by known_at) as next_bid_size
            from staging.book_quotes
        )

        select symbol, market, source, decision_at, next_bid_size
        from led
        where decision_at >= $start and decision_at < $end
        """,
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The real declarations with leaks beside them, their raw tables made; a day of a simulated book."""
    house = House(copy_project(tmp_path_factory.mktemp("proofs"), date(2004, 9, 1), date(2005, 4, 1), FOLDS))
    declared = (house.home / "sources.yaml").read_text().splitlines()
    days = [line for line in declared if line.startswith("days:")]
    house.edit("sources.yaml", days[0], "days: {start: 2013-03-26, end: 2013-03-27}")
    for table, text in LEAKS.items():
        house.write(f"sql/{table.replace('.', '/')}.sql", text)
    house.reload()
    made = "instruments bars corporate_actions macro_observations news filings theses book_events trades"
    for name in made.split():
        assert not house.make(f"raw.{name}").failed
    return house


def written(house: House, raw: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The raw rows with news, filings and theses about two symbols, some corrected later; the default sources have none."""
    rng = np.random.default_rng(2)
    words = ("growth", "loss", "record profit", "weak demand", "lawsuit", "meeting", "strong")

    def stamps(count: int) -> list[dict]:
        at = [datetime(2004, 9, 1, tzinfo=UTC) + timedelta(hours=float(h)) for h in np.sort(rng.uniform(0, 24 * 200, count))]
        return [
            {"event_at": a, "known_at": a + timedelta(days=float(rng.exponential(5))) * int(i % 4 == 0), "source": "wire"}
            for i, a in enumerate(at)
        ]

    def said() -> str:
        return " ".join(rng.choice(words, 4))

    def symbol() -> str:
        return str(rng.choice(["IBM", "AAPL"]))

    made = {
        "raw.news": [
            {"article_id": f"n{i // 2}", "symbol": symbol(), "headline": said()} | s for i, s in enumerate(stamps(400))
        ],
        "raw.filings": [
            {"accession": f"f{i // 3}", "section": f"item_{i % 3}", "symbol": symbol(), "text": said()} | s
            for i, s in enumerate(stamps(60))
        ],
        "raw.theses": [
            {"thesis_id": f"t{i}", "symbol": symbol(), "action": str(rng.choice(["buy", "sell", "hold"])), "reasoning": said()}
            | s
            for i, s in enumerate(stamps(150))
        ],
    }
    out = dict(raw)
    for name, rows in made.items():
        types = {column: POLARS_TYPES[kind] for column, kind in house.project.tables[name].types.items()}
        empty = pl.DataFrame(schema=types)
        out[name] = pl.concat([empty, pl.DataFrame(rows, schema_overrides=types)], how="diagonal")
    return out


def raw_rows(house: House, targets: list[str], cut: datetime) -> dict[str, pl.DataFrame]:
    with house.warehouse.reading() as (cursor, _):
        raw = read_raw(cursor, house.project, targets, *around(house.project, targets, cut))
    return written(house, raw) if "raw.news" in raw else raw


@pytest.mark.parametrize("cut", CUTS)
def test_regimes_macro_and_text_know_nothing_of_later(house, cut):
    raw = raw_rows(house, BY_MONTH, cut)
    assert [str(leak) for leak in find_leaks(house.project, raw, BY_MONTH, cut, 1)] == []
    first, last = around(house.project, BY_MONTH, cut)
    before, after = (rebuild(house.project, rows, BY_MONTH, first, last) for rows in (raw, mutate(raw, cut, 1)))
    for name in BY_MONTH:
        late = pl.col("decision_at").is_between(cut, house.project.span(last, last)[1])
        assert frame_hash(before[name].filter(late)) != frame_hash(after[name].filter(late)), f"{name}: nothing was changed"


def test_months_one_by_one_are_the_range(house):
    first, last = "2004-11-01", "2005-02-01"
    raw = raw_rows(house, BY_MONTH, CUTS[0])
    whole = rebuild(house.project, raw, BY_MONTH, first, last)
    for month in ("2004-11-01", "2004-12-01", "2005-02-01"):
        alone = rebuild(house.project, raw, BY_MONTH, month, month)
        start, end = house.project.span(month, month)
        for name in BY_MONTH:
            inside = pl.col("decision_at").is_between(start, end, closed="left")
            assert alone[name].filter(inside).height > 20
            assert frame_hash(alone[name].filter(inside)) == frame_hash(whole[name].filter(inside)), (name, month)


def test_book_features_know_nothing_of_later(house):
    raw = raw_rows(house, ["features.book"], DAY_CUT)
    assert [str(leak) for leak in find_leaks(house.project, raw, ["features.book"], DAY_CUT, 1)] == []


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_caught(house, name):
    cut = DAY_CUT if name == "features.book_peek" else CUTS[1]
    leaks = find_leaks(house.project, raw_rows(house, [name], cut), [name], cut, 3)
    assert {leak.table for leak in leaks} == {name}
