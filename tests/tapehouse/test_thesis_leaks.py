"""Theses and what they rest on: no row known before a cut depends on what was known after it, imported texts included."""

import random
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tapehouse.frames import POLARS_TYPES
from tapehouse.hashing import frame_hash
from tapehouse.leakage import around, find_leaks, mutate
from tapehouse.scratch import read_raw, rebuild
from tests.house import House, copy_project

TARGETS = ["datasets.theses"]
TRAINED_UNTIL = datetime(2004, 11, 19, 14, 30, tzinfo=UTC)
CUTS = [TRAINED_UNTIL, datetime(2005, 2, 24, 21, 5, tzinfo=UTC)]
SYMBOLS = ("AAPL", "IBM", "MSFT")
FIRST, DAYS = datetime(2003, 9, 1, 4, tzinfo=UTC), 660
ACTIONS = ("strong_sell", "sell", "hold", "buy", "strong_buy")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """The real declarations, for one fold tested from December 2004 on; raw prices alone are made."""
    house = House(copy_project(tmp_path_factory.mktemp("theses"), date(2003, 9, 1), date(2005, 7, 1)))
    (fold,) = house.project.folds.values()
    assert fold.train_end == TRAINED_UNTIL
    for name in ("raw.instruments", "raw.bars", "raw.corporate_actions"):
        house.make(name)
    return house


@pytest.fixture(scope="module")
def raw(house):
    with house.warehouse.reading() as (cursor, _):
        found = read_raw(cursor, house.project, TARGETS, *around(house.project, TARGETS, CUTS[1]))
    return found | {name: records(house, name, rows()) for name, rows in TEXTS.items()}


def records(house, name: str, rows: list[dict]) -> pl.DataFrame:
    """Rows of a raw table, with nulls in what is not given."""
    types = {column: POLARS_TYPES[kind] for column, kind in house.project.tables[name].types.items()}
    full = [dict.fromkeys(types) | {"source": "test", "ingested_at": FIRST} | row for row in rows]
    return pl.DataFrame(full, schema=types)


def moments(every: int):
    """(number, symbol, when) of something that happens to every symbol each so many days."""
    return [(n, s, FIRST + timedelta(days=n)) for n in range(0, DAYS, every) for s in SYMBOLS]


def theses() -> list[dict]:
    rng = random.Random(1)
    rows = []
    for n, symbol, at in moments(6):
        said = {"thesis_id": f"{symbol}{n}", "symbol": symbol, "as_of": (at - timedelta(days=1)).date(), "event_at": at}
        said |= {"reasoning": "Demand grows. Rates fall.", "origin": "a.xml"}
        rows.append(said | {"known_at": at, "action": rng.choice(ACTIONS)})
        if n % 4 == 0:
            rows.append(
                said | {"known_at": at + timedelta(days=40), "action": rng.choice(ACTIONS), "reasoning": "Demand falls."}
            )
    return rows


def fundamentals() -> list[dict]:
    rows = []
    for symbol in SYMBOLS:
        for year in (2002, 2003, 2004):
            end = date(year, 12, 31)
            for late, income in ((60, 5.0), (200, -2.0)):
                told = {"symbol": symbol, "unit": "USD", "period_end": end, "event_at": datetime(year + 1, 1, 1, 5, tzinfo=UTC)}
                told |= {"known_at": told["event_at"] + timedelta(days=late)}
                rows.append(told | {"concept": "us-gaap:NetIncomeLoss", "period_start": date(year, 1, 1), "value": income})
                rows.append(told | {"concept": "us-gaap:Assets", "period_start": end, "value": 90.0 + late})
    return rows


def trades() -> list[dict]:
    return [
        {
            "symbol": symbol,
            "accession": f"0000000001-04-{n:06d}",
            "line": 1,
            "owner_cik": str(n % 3),
            "derivative": False,
            "transaction_date": (at - timedelta(days=1)).date(),
            "code": "P" if n % 5 else "S",
            "acquired_disposed": "A" if n % 5 else "D",
            "shares": 10.0,
            "price": 5.0,
            "event_at": at,
            "known_at": at + timedelta(days=n % 4),
        }
        for n, symbol, at in moments(17)
    ]


def news() -> list[dict]:
    words = ("Record profit", "A lawsuit", "Growth", "Losses and default")
    return [
        {
            "article_id": f"{symbol}{n}",
            "symbol": symbol,
            "headline": words[n % 4],
            "event_at": at,
            "known_at": at + timedelta(hours=n % 30),
        }
        for n, symbol, at in moments(5)
    ]


TEXTS = {"raw.theses": theses, "raw.fundamentals": fundamentals, "raw.insider_trades": trades, "raw.news": news}


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_theses_know_nothing_of_later(house, raw, cut):
    assert [str(leak) for leak in find_leaks(house.project, raw, TARGETS, cut, 3)] == []


def test_the_proof_has_theses_of_every_kind_and_another_future_changes_them(house, raw):
    (fold,) = house.project.folds
    rows = rebuild(house.project, raw, TARGETS, fold, fold)["datasets.theses"]
    imported = rows.filter(pl.col("origin") != "teacher")
    assert imported.height > 200 and rows.height - imported.height > 800
    known = [name for name in rows.columns if name.startswith("claim_") and rows[name].null_count() < rows.height / 2]
    assert len(known) == 8
    assert rows["numbers_not_shown"].sum() == 0
    changed = rebuild(house.project, mutate(raw, CUTS[1], 3), TARGETS, fold, fold)["datasets.theses"]
    late = pl.col("known_at") > CUTS[1]
    for what in (pl.col("origin") == "teacher", pl.col("origin") != "teacher"):
        assert not changed.filter(late, what).equals(rows.filter(late, what))


def test_company_features_know_nothing_of_later_and_a_month_alone_has_the_bits_of_the_range(house, raw):
    name = "features.company"
    cut = datetime(2004, 9, 17, 12, tzinfo=UTC)
    assert [str(leak) for leak in find_leaks(house.project, raw, [name], cut, 5)] == []
    everything = rebuild(house.project, raw, [name], "2004-01-01", "2004-12-01")[name]
    for month in ("2004-03-01", "2004-08-01"):
        start, end = house.project.span(month, month)
        inside = pl.col("decision_at").is_between(start, end, closed="left")
        alone = rebuild(house.project, raw, [name], month, month)[name].filter(inside)
        assert alone["return_on_assets"].count() > 50 and alone["insider_buys_90d"].sum() > 0
        assert frame_hash(alone) == frame_hash(everything.filter(inside))
