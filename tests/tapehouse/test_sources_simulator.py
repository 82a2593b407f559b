"""The simulator: the same bits however a range is cut, prices that its own corporate actions explain, rows that say so."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.simulated_bars import INDEX, equity
from tapehouse.sources.base import Ask
from tapehouse.sources.simulator import MAKERS, Book, Declaration, deliver, fingerprint, first_sessions, lives, universe_lines

START, END = datetime(2004, 1, 1, tzinfo=UTC), datetime(2006, 1, 1, tzinfo=UTC)
DECLARED = Declaration(
    kind="simulator",
    seed=7,
    start=date(2004, 1, 1),
    equities=12,
    delisted_per_year=0.3,
    renamed=0.5,
    missing=0.02,
    corrected=0.01,
    futures={"SIM:FUT-H5": date(2005, 3, 18), "SIM:FUT-M5": date(2005, 6, 17)},
    perpetuals={"SIM:PERP": {"funding_hours": 8}},
)


def asked(offer="bars", start=START, end=END, symbols=None, declared=DECLARED, source="simulator"):
    return declared, Ask(offer, source, symbols or declared.symbols, start, end, None)


def rows(*about, **more) -> pl.DataFrame:
    delivery = deliver(*asked(*about, **more))
    assert delivery.counts["received"] == delivery.rows.height and delivery.rejected.is_empty()
    return delivery.rows


KINDS = {"bars": [], "actions": ["kind"], "funding": []}
WHOLE = {offer: rows(offer).sort("symbol", "event_at", "known_at", *KINDS[offer]) for offer in MAKERS}


@pytest.mark.parametrize("offer", MAKERS)
@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 730), max_size=4), shown=st.permutations(DECLARED.symbols))
def test_any_cutting_of_a_range_and_any_order_of_symbols_gives_the_same_bits(offer, cuts, shown):
    edges = [START, *(START + timedelta(days=day) for day in sorted(set(cuts))), END]
    parts = [rows(offer, first, last, tuple(shown)) for first, last in pairwise(edges)]
    assert_frame_equal(pl.concat(parts).sort("symbol", "event_at", "known_at", *KINDS[offer]), WHOLE[offer], check_exact=True)


def test_one_symbol_alone_is_what_it_is_among_others():
    assert_frame_equal(rows(symbols=(equity(3),)), rows().filter(symbol=equity(3)), check_exact=True)
    more = DECLARED.model_copy(update={"equities": 40, "end": date(2030, 1, 1), "perpetuals": {}})
    alone = (equity(3), INDEX)
    assert_frame_equal(rows(symbols=alone, declared=more), rows(symbols=alone), check_exact=True)
    assert fingerprint(*asked(symbols=alone, declared=more)) == fingerprint(*asked(symbols=alone))


def test_another_seed_or_option_is_another_market():
    other = [DECLARED.model_copy(update=change) for change in ({"seed": 8}, {"missing": 0.03}, {"dividends": False})]
    assert len({fingerprint(*asked(declared=d)) for d in (DECLARED, *other)}) == 4
    assert len({frame_hash(rows(declared=d)) for d in (DECLARED, *other)}) == 4


def test_bars_are_bars():
    bars = rows()
    low, high = pl.min_horizontal("open", "close"), pl.max_horizontal("open", "close")
    assert bars.filter(
        (pl.col("low") > low) | (pl.col("high") < high) | (pl.col("low") <= 0) | (pl.col("volume") < 1)
    ).is_empty()
    assert bars.select("symbol", "session", "known_at").is_unique().all()
    late = bars.filter(pl.col("known_at") != pl.col("event_at"))
    assert 0.002 < late.height / bars.height < 0.02 and (late["known_at"] - late["event_at"]).unique().to_list() == [
        timedelta(days=2)
    ]
    before = late.join(bars.filter(pl.col("known_at") == pl.col("event_at")), on=["symbol", "session"], suffix="_before")
    assert before.height == late.height and (before["high"] > before["high_before"]).all()
    bars = bars.filter(pl.col("known_at") == pl.col("event_at"))
    half_day = bars.filter(symbol=INDEX, session=date(2004, 11, 26))["event_at"].to_list()
    assert half_day == [datetime(2004, 11, 26, 18, tzinfo=UTC)]
    assert bars.select("symbol", "session").is_unique().all()
    held = bars.filter(symbol="SIM:PERP")
    assert held.height == 730 and held["session"][0] == date(2004, 1, 1)  # it trades around the clock; 2005-12-31 closes later


def test_delistings_holes_and_expiries():
    bars, index = rows().unique(["symbol", "session"], maintain_order=True), rows(symbols=(INDEX,))["session"].unique()
    gone = {s: about.delisted for s, about in lives(DECLARED).items() if about.delisted and about.delisted < END.date()}
    assert 2 <= len(gone) <= 10
    for symbol, last in gone.items():
        of_symbol = bars.filter(symbol=symbol)["session"]
        assert of_symbol.is_empty() or of_symbol[-1] <= last
    staying = [equity(n) for n in range(1, 13) if equity(n) not in gone]
    lost = 1 - bars.filter(pl.col("symbol").is_in(staying)).height / (len(staying) * index.len())
    assert 0.01 < lost < 0.03
    assert bars.filter(symbol="SIM:FUT-H5")["session"].max() == date(2005, 3, 18)


def test_first_sessions_are_told_without_a_bar():
    declared = DECLARED.model_copy(update={"missing": 0.0, "books": {"SIM:BOOK": {}}})
    found = dict(rows(declared=declared).group_by("symbol").agg(pl.col("session").min()).rows())
    assert first_sessions(*asked(declared=declared)) == found


def test_the_actions_explain_the_steps_of_the_prices():
    declared = Declaration(kind="simulator", seed=3, start=date(1990, 1, 1), equities=40)
    start, end = datetime(1990, 1, 1, tzinfo=UTC), datetime(2010, 1, 1, tzinfo=UTC)
    bars, actions = (rows(offer, start, end, declared=declared) for offer in ("bars", "actions"))
    splits = actions.filter(kind="split")
    assert splits.height > 10 and actions.filter(kind="dividend").height > 1000
    returns = bars.sort("symbol", "session").with_columns(before=pl.col("close").shift().over("symbol")).drop_nulls("before")
    at = splits.join(returns, left_on=["symbol", "ex_date"], right_on=["symbol", "session"])
    paid = actions.filter(kind="dividend").select("symbol", "ex_date", cash="amount")
    at = at.join(paid, on=["symbol", "ex_date"], how="left").with_columns(pl.col("cash").fill_null(0.0))
    assert at.height == splits.height
    # Restated by its action the share moves as on any other day; as it is printed it seems to jump.
    restated = at.select(((pl.col("close") * pl.col("ratio") + pl.col("cash")) / pl.col("before")).log().abs()).to_series()
    printed = at.select((pl.col("close") / pl.col("before")).log().abs()).to_series()
    assert restated.max() < 0.2 < printed.min()
    assert bars.filter(pl.col("symbol") != INDEX)["close"].max() < 2000


def test_daily_returns_have_the_declared_deviation():
    declared = Declaration(kind="simulator", seed=11, start=date(1990, 1, 1), equities=1, splits=False, dividends=False)
    index = rows("bars", datetime(1990, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), (INDEX,), declared)
    years = np.diff(np.log(index["close"].to_numpy())).std() * np.sqrt(252)
    assert years == pytest.approx(0.16, rel=0.04)
    by_year = (
        index.group_by(pl.col("session").dt.year())
        .agg(pl.col("close").last())
        .sort("session")["close"]
        .log()
        .diff()
        .drop_nulls()
    )
    assert by_year.std() == pytest.approx(0.16, rel=0.3)


def test_funding_comes_every_eight_hours():
    paid = rows("funding", datetime(2005, 5, 1, tzinfo=UTC), datetime(2005, 5, 3, tzinfo=UTC))
    assert [moment.hour for moment in paid["event_at"]] == [0, 8, 16, 0, 8, 16]
    assert paid["rate"].abs().max() <= 0.0075 and paid["symbol"].unique().to_list() == ["SIM:PERP"]
    bar = rows("bars", START, END, ("SIM:PERP",)).filter(session=date(2005, 4, 30))
    assert paid["mark_price"][0] == bar["close"][0]  # midnight: where the day before closed
    booked = DECLARED.model_copy(update={"books": {"SIM:PERP": Book(opening_price=80.0)}})
    near = rows("funding", datetime(2005, 5, 1, tzinfo=UTC), datetime(2005, 5, 3, tzinfo=UTC), declared=booked)["mark_price"]
    assert near.is_between(75, 85).all()


def test_books_and_trades_are_those_of_the_simulated_stream():
    declared = Declaration(kind="simulator", equities=0, books={"SIM:BOOK": {"market": "spot"}, "SIM:PERP": {}})
    start, end = datetime(2005, 5, 3, 11, tzinfo=UTC), datetime(2005, 5, 3, 12, tzinfo=UTC)
    for offer, column in (("book", "bid_prices"), ("trades", "side")):
        found = rows(offer, start, end, declared=declared)
        assert found["symbol"].unique(maintain_order=True).to_list() == ["SIM:BOOK", "SIM:PERP"] and column in found.columns
        assert found["known_at"].is_between(start, end, closed="left").all() and set(found["source"]) == {"simulator"}
        assert rows(offer, start, end, ("SIM:INDEX",), declared).schema == found.schema


def test_the_universe_tells_of_delistings_and_changed_tickers():
    lines = universe_lines(DECLARED, "simulator")
    assert list(lines) == list(DECLARED.symbols) and len({line["id"] for line in lines.values()}) == len(lines)
    renamed = [s for s, about in lives(DECLARED).items() if about.renamed]
    assert renamed and all(lines[s]["history"][1]["symbol"] == s for s in renamed)
    gone = [s for s, about in lives(DECLARED).items() if about.delisted]
    assert gone and all(lines[s]["delisted"]["known_at"] < lines[s]["delisted"]["on"] for s in gone)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": "eodhd"}, "begins with 'simulat'"),
        ({"symbols": ("AAPL",)}, "begin with SIM:"),
        ({"symbols": ("SIM:0013",)}, "does not hold SIM:0013"),
    ],
)
def test_what_does_not_say_that_it_is_simulated_is_refused(more, said):
    for act in (deliver, fingerprint):
        with pytest.raises(TapehouseError, match=said):
            act(*asked(**more))


def test_a_symbol_that_does_not_say_so_cannot_be_declared():
    for key in ("perpetuals", "books"):
        with pytest.raises(ValueError, match="a simulated symbol begins with SIM:"):
            Declaration(kind="simulator", **{key: {"BTCUSDT": {}}})
