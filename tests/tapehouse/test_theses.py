"""Theses by fold: the teacher's, imported ones in the same form, and the contract that refuses a made-up number."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

import tapehouse.theses as module
from tapehouse.expectations import evaluate
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash
from tapehouse.prompts.templates import selection
from tapehouse.prompts.thesis import CLAIMS, SECTIONS, Claim, Thesis, parse_thesis
from tapehouse.refusals import REFUSED
from tapehouse.tables import load_doc
from tapehouse.theses import NO_DECISION, STAGES, build_theses, in_sections, stages
from tests.house import ROOT
from tests.tapehouse.test_teacher import POINT, TYPES

CHOSEN = selection("thesis_v1")
FIRST = date(2008, 9, 1)
TRAINED = datetime(2008, 9, 20, tzinfo=UTC)
FOLD = Fold("f", TRAINED, TRAINED, TRAINED, TRAINED, TRAINED, 0, FIRST, FIRST)
COMPANY = ("return_on_assets", "net_margin", "insider_buys_90d", "insider_sells_90d")
STAMP = pl.Datetime("us", "UTC")
KEY = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP}
CLASS = KEY | {"signal_class": pl.String} | dict.fromkeys(("label_end_at", "label_known_at", "known_at"), STAMP)
IMPORTED = dict.fromkeys(("thesis_id", "symbol", "action", "reasoning", "source"), pl.String)
IMPORTED |= {"as_of": pl.Date, "event_at": STAMP, "known_at": STAMP}


def decided(session: date) -> datetime:
    return datetime(session.year, session.month, session.day, 20, 5, tzinfo=UTC)


def inputs(sessions: list[date], symbols=("IBM",)) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decision points and company features, alike but for their key."""
    rows = [POINT | {"symbol": s, "decision_at": decided(d), "session": d} for s in symbols for d in sessions]
    kinds = {n: pl.Int64 if isinstance(v, int) else pl.Float64 for n, v in POINT.items() if not isinstance(v, str)} | TYPES
    points = pl.DataFrame(rows, schema={n: kinds[n] for n in POINT} | {"session": pl.Date}).with_columns(known_at="decision_at")
    key = [*KEY, "known_at"]
    return points.drop(COMPANY), points.select(*key, *COMPANY)


def classes(points: pl.DataFrame, named: list[str | None]) -> pl.DataFrame:
    rows = [
        (symbol, "1d", at, name, at + timedelta(days=21), at + timedelta(days=22), max(at + timedelta(days=22), TRAINED))
        for symbol, at, name in zip(points["symbol"], points["decision_at"], named, strict=True)
    ]
    return pl.DataFrame(rows, schema=CLASS, orient="row")


def thesis(name, as_of, reasoning, action="buy", known=None, symbol="IBM") -> dict:
    event_at = datetime.combine(as_of + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=4)
    said = {"thesis_id": name, "symbol": symbol, "action": action, "reasoning": reasoning, "source": "s"}
    return said | {"as_of": as_of, "event_at": event_at, "known_at": known or event_at}


def built(sessions, named, theses=(), symbols=("IBM",)):
    points, company = inputs(sessions, symbols)
    return build_theses(points, company, classes(points, named), pl.DataFrame(list(theses), schema=IMPORTED), CHOSEN, FOLD)


def session(day: int) -> date:
    return FIRST + timedelta(days=day)


def test_the_teachers_action_is_the_folds_class():
    rows = built([session(0), session(1), session(25)], ["sell", None, "strong_buy"]).rows
    assert rows["decision_at"].to_list() == [decided(session(0)), decided(session(25))]  # none without a class
    assert rows["action"].to_list() == ["sell", "strong_buy"]
    assert [parse_thesis(answer).action for answer in rows["answer"]] == ["sell", "strong_buy"]
    assert rows.select("fold", "origin", "template").unique().rows() == [("f", "teacher", CHOSEN.version)]
    assert rows["label_known_at"].to_list() == [decided(session(22)), decided(session(47))]
    assert rows["known_at"].to_list() == [decided(session(22)), decided(session(47))]
    assert rows["claim_volatility"].to_list() == [False, False]
    assert rows.select(f"section_{name}" for name in SECTIONS).row(0) == (True,) * 6
    assert rows["numbers_not_shown"].to_list() == [0, 0]
    assert rows["difficulty"].to_list() == [0.25, 0.5]  # -0.5 and 1, where half of the claims hold
    assert not rows["prompt"].str.contains("sell|buy|hold").any()


def test_imported_theses_are_put_into_the_same_form():
    said = "Momentum is back: +1.2% lately. That counts. R&D is strong. Credit spreads stay at 1.62 though!"
    found = built(
        [session(0), session(3), session(10)],
        [None] * 3,
        [
            thesis("a", session(3), said),
            thesis("b", session(5), "A weekend's thought.", "strong_sell"),  # belongs to the decision two days before
            thesis("c", session(8), "The news is bad."),  # five days after the last decision
            thesis("d", session(3), "It will reach 140 dollars."),
            thesis("e", session(3), "Demand. " * 90),
            thesis("f", session(3), "Nobody has a price for it.", symbol="MSFT"),
        ],
    )
    reasons = {"d": "numbers that the decision's prompt does not show: 140", "e": "a section has more than 600 characters"}
    reasons |= dict.fromkeys("cf", NO_DECISION)
    told = found.refused.with_columns(pl.col("origin").str.strip_prefix("fold f: staging.theses "))
    assert dict(told.select("origin", "reason").iter_rows()) == reasons
    assert found.refused.schema == pl.Schema(REFUSED) and "140 dollars" in "".join(found.refused["record"])
    a, b = found.rows.iter_rows(named=True)
    assert (a["origin"], a["decision_at"], a["action"]) == ("a", decided(session(3)), "buy")
    assert (b["origin"], b["decision_at"], b["action"]) == ("b", decided(session(3)), "strong_sell")
    parsed = parse_thesis(a["answer"])
    assert parsed.sections == dict.fromkeys(SECTIONS) | {
        "trend": "Momentum is back: +1.2% lately. That counts. R and D is strong.",
        "macro": "Credit spreads stay at 1.62 though!",
    }
    assert parsed.claims["momentum_10d"] == Claim(True, ("ten days +1.2%",))  # facts, as the teacher states them
    assert (a["section_trend"], a["section_risk"], a["claim_quality"]) == (True, False, True)
    event_at = datetime(2008, 9, 5, 4, tzinfo=UTC)
    assert (a["label_end_at"], a["label_known_at"], a["known_at"]) == (event_at, event_at, TRAINED)


def test_a_thesis_is_taken_as_it_stood_when_training_ended():
    late = TRAINED + timedelta(days=5)
    versions = [
        thesis("a", session(0), "First.", "sell"),
        thesis("a", session(0), "Corrected.", "buy", known=TRAINED - timedelta(days=1)),
        thesis("a", session(0), "Corrected again.", "hold", known=late),
        thesis("b", session(25), "Later than training.", "sell"),
        thesis("b", session(25), "Corrected.", "buy", known=late + timedelta(days=9)),
    ]
    rows = built([session(0), session(25)], [None, None], versions).rows
    assert rows["action"].to_list() == ["buy", "sell"]
    assert rows["known_at"].to_list() == [TRAINED, versions[3]["known_at"]]
    assert rows["label_known_at"].to_list() == [TRAINED - timedelta(days=1), versions[3]["known_at"]]


def test_sentences_are_kept_whole_and_in_order():
    text = "It is cheap.  Rates\nfall; the economy grows. Volatility?\x07 Analysts < insiders & co!"
    found = in_sections(text)
    assert found == dict.fromkeys(SECTIONS) | {
        "macro": "Rates fall; the economy grows.",
        "risk": "Volatility?",
        "company": "It is cheap. Analysts below insiders and co!",
    }
    assert in_sections(" ") == dict.fromkeys(SECTIONS)


def test_stages_are_drawn_by_the_key_at_the_declared_shares():
    points, _ = inputs([session(day) for day in range(1500)], ("AAPL", "IBM"))
    drawn = stages(points)
    shares = dict(drawn.value_counts(normalize=True).iter_rows())
    assert shares == {name: pytest.approx(share, abs=0.03) for name, share in STAGES.items()}
    assert stages(points[::-1])[::-1].equals(drawn)


def test_a_decision_alone_has_the_bits_that_it_has_among_others(monkeypatch):
    days = [session(day) for day in range(12)]
    named = ["hold", "buy"] * 12
    theses = [thesis("a", session(3), "Short."), thesis("b", session(5), "Shorter.")]
    rows = built(days, named, theses, ("AAPL", "IBM")).rows
    for day, at in ((3, 3), (7, 7)):
        alone = built([days[day]], [named[day]] * 2, [t for t in theses if t["as_of"] == session(at)], ("AAPL", "IBM")).rows
        among = rows.filter(decision_at=decided(days[day]))
        assert frame_hash(alone) == frame_hash(among)
    monkeypatch.setattr(module, "SLICE", 5)
    assert frame_hash(built(days, named, theses, ("AAPL", "IBM")).rows) == frame_hash(rows)


def contract(rows: pl.DataFrame) -> dict[str, tuple[int, ...]]:
    """Entries of the real contract that rows break, with the rows."""
    doc = load_doc(ROOT / "checks/datasets/theses.yaml")
    assert set(doc.columns) == set(rows.columns)
    return {r.expectation: r.rows for r in evaluate(rows, doc.contract, "theses.yaml") if not r.success}


def test_a_made_up_number_breaks_the_contract(monkeypatch):
    rows = built([session(0), session(1)], ["sell", "buy"]).rows
    assert contract(rows) == {}
    write = module.write_theses

    def one_makes_up(*arguments):
        first, second = write(*arguments)
        trend = second.sections["trend"].replace(".", ", a target of 140.", -1)
        return [
            first,
            Thesis(second.sections | {"risk": "It may fall by 7.77%.", "trend": trend}, second.claims, second.action),
        ]

    monkeypatch.setattr(module, "write_theses", one_makes_up)
    planted = built([session(0), session(1)], ["sell", "buy"]).rows
    assert planted["numbers_not_shown"][0] == 0 and planted["numbers_not_shown"][1] >= 2
    broken = contract(planted)
    assert broken == {"expect_column_values_to_be_between(column=numbers_not_shown, min_value=0, max_value=0)": (1,)}


def test_a_prompt_with_the_decision_in_it_breaks_the_contract():
    rows = built([session(0)], ["strong_sell"]).rows
    for told in ("class strong_sell\n", "desk says hold\n"):
        (broken,) = contract(rows.with_columns(prompt=pl.col("prompt") + told))
        assert broken.startswith("expect_column_values_to_not_match_regex(column=prompt")
    held = [name for name in CLAIMS if rows[f"claim_{name}"][0] is not None]
    assert len(held) == 8
