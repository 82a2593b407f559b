"""The report: what it claims, that it needs no network, that it repeats byte for byte, and what it refuses."""

import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.evaluations.core import EVALUATIONS
from tapehouse.evaluations.reading import MEANING
from tapehouse.report.answers import answers_table
from tapehouse.report.board import board, groups
from tapehouse.report.caveats import DETAILS, HINDSIGHT, hindsight
from tapehouse.report.figures import differences_figure, equity_figure, first_shown, styles
from tapehouse.report.links import pageless
from tapehouse.report.page import report_html
from tapehouse.report.preview import preview_png
from tapehouse.report.provenance import page_row, provenance
from tapehouse.report.shell import chart, figures_of
from tapehouse.report.verdict import Record, headline, number, percent, records, span
from tapehouse.subject_differences import difference_rows
from tapehouse.trials import fit_trials
from tapehouse.verdicts import BEATS, INCONCLUSIVE, LOSES, curves, verdicts

ROOT = Path(__file__).resolve().parents[2]
FOLDS = {"2024-01-02": date(2024, 1, 2), "2024-06-03": date(2024, 6, 3)}
SESSIONS = 80
KINDS = {"always_hold": "baseline", "momentum": "baseline", "ours": "adapter"}


def frames(drift: dict[str, float], traded: dict[str, int] | None = None, seed: int = 0):
    """Leaderboard and equity of subjects whose daily returns share one noise and differ by `drift`."""
    rng = np.random.default_rng(seed)
    board, curves = [], []
    for fold, first in FOLDS.items():
        noise = rng.normal(0, 0.005, SESSIONS)
        for subject, shift in drift.items():
            trades = 30 if traded is None else traded.get(subject, 30)
            if subject == "always_hold":
                trades = 0
            ret = np.where(np.arange(SESSIONS) == 0, 0.0, (noise + shift) * (trades > 0))
            kind = KINDS.get(subject, "adapter")
            board.append((subject, fold, kind, 1, float(np.prod(1 + ret) - 1), 0.0, trades))
            curves += [(subject, fold, first + timedelta(days=i), float(r)) for i, r in enumerate(ret)]
    names = ["subject", "fold", "kind", "rank", "return", "return_before_costs", "trades"]
    leaderboard = pl.DataFrame(board, schema=names, orient="row").with_columns(
        *(pl.lit(0.5).alias(c) for c in ("sharpe", "sortino", "hit_rate", "turnover", "exposure")),
        pl.lit(-0.1).alias("max_drawdown"),
    )
    equity = pl.DataFrame(curves, schema=["subject", "fold", "session", "ret"], orient="row")
    return leaderboard, equity


def judged(subjects) -> pl.DataFrame:
    where = ("test", "all", "")
    figures = [(m, 0.25 if m != "n" else 160.0, 0.25, 0.25, 160, None) for m in MEANING]
    rows = [(s, f, *where, *figure) for s in subjects for f in FOLDS for figure in figures]
    return pl.DataFrame(rows, schema=EVALUATIONS, orient="row")


def trades(subjects) -> pl.DataFrame:
    rows = [(s, f, symbol, 1000.0, "take") for s in subjects for f in FOLDS for symbol in ("A", "B")]
    return pl.DataFrame(rows, schema=["subject", "fold", "symbol", "pnl", "exit_reason"], orient="row")


def verdict_rows(board: pl.DataFrame, equity: pl.DataFrame) -> pl.DataFrame:
    """Verdicts as the asset computes them, the baselines being those of the leaderboard."""
    counts = dict(board.group_by("subject").agg(pl.col("trades").sum()).iter_rows())
    kinds = dict(board.select("subject", "kind").unique().iter_rows())
    baselines = sorted(name for name, kind in kinds.items() if kind == "baseline") or ["ours"]
    return verdicts(curves(equity, counts), kinds, baselines, fit_trials(equity, dict.fromkeys(kinds, "h"), {}), 5)


def record_of(name: str, drift: dict[str, float], **kwargs):
    board, equity = frames(drift, **kwargs)
    return next(r for r in records(verdict_rows(board, equity), equity) if r.subject == name)


def test_the_sentence_says_the_verdict_and_its_figures():
    lost = record_of("ours", {"always_hold": 0.0, "momentum": 0.0, "ours": -0.002})
    assert lost.word == LOSES and lost.sentence.startswith("ours loses to ") and "interval of the difference" in lost.sentence
    assert "Sharpe ratio \N{MINUS SIGN}" in lost.sentence and "over 158 sessions and 60 trades" in lost.sentence
    even = record_of("ours", {"always_hold": 0.0, "ours": 0.0002})
    assert even.word == INCONCLUSIVE and even.sentence.startswith("ours is not shown to beat always_hold")
    assert "includes 0" in even.sentence
    idle = record_of("ours", {"always_hold": 0.0, "momentum": 0.001, "ours": 0.0}, traded={"ours": 0})
    assert idle.sentence == "ours never traded, so there is nothing to compare."
    ahead = record_of("ours", {"always_hold": 0.0, "momentum": 0.001, "ours": 0.004})
    assert ahead.word == BEATS and ahead.sentence.startswith("ours beats momentum")
    assert headline([lost, even]) == "None of the 2 subjects beats the strongest baseline over its sessions; 1 lose to it."
    assert headline([ahead, lost]) == "1 of 2 subjects beat the strongest baseline over their sessions: ours."
    assert headline([]).startswith("Baselines only")


def test_joined_record_by_hand():
    """Two blocks, each 0, +1 % and -1 %: 1.01 * 0.99 twice; nothing can be earned on a first session."""
    daily = (0.0, 0.01, -0.01)
    rows = [("ours", fold, first + timedelta(days=i), daily[i]) for fold, first in FOLDS.items() for i in range(3)]
    equity = pl.DataFrame(rows, schema=["subject", "fold", "session", "ret"], orient="row")
    board = pl.DataFrame({"subject": ["ours"] * 2, "fold": list(FOLDS), "kind": ["adapter"] * 2, "trades": [3, 4]})
    (record,) = records(verdict_rows(board, equity), equity)
    assert record.gained == pytest.approx((1.01 * 0.99) ** 2 - 1)
    assert (record.trades, len(record.ret)) == (7, 4)
    assert record.max_drawdown == pytest.approx(min(0.99, 0.99 * 1.01 * 0.99) - 1)


@pytest.fixture(scope="module")
def page() -> str:
    return render()


def render() -> str:
    drift = {"always_hold": 0.0, "momentum": 0.001, "ours": -0.001, "</script><b>": 0.0}
    board, equity = frames(drift)
    pairs = pl.DataFrame(
        {
            "objective": ["patient"] * 2,
            "margin_bps": [10.0, 30.0],
            "chosen_offset_atr": [1.0, 2.0],
            "rejected_offset_atr": [2.0, 1.0],
            "chosen_filled": [True, False],
            "rejected_filled": [False, False],
        }
    )
    return report_html(
        verdict_rows(board, equity),
        board,
        equity,
        trades(["ours", "momentum"]),
        judged(drift),
        difference_rows(curves(equity, {})),
        {"snapshot": "7", "commit": "abc", "folds": "two"},
        pairs,
    )


def test_first_screen_says_it_in_words(page):
    head = page[: page.index("<section")]
    assert "snapshot 7" in head and "commit abc" in head
    assert HINDSIGHT in head and "one span of one market" in head
    # What the figures are worth comes before them.
    assert (
        head.index("None of the 2 subjects beats")
        < head.index("chosen with hindsight")
        < head.index("<span>BEATS</span><b>0</b>")
    )
    words = page[page.index('<section id="verdicts">') :]
    assert "ours loses to " in words
    assert "25.0\N{NO-BREAK SPACE}% of its answers did not parse and acted as HOLD" in words


def test_the_leaderboard_links_and_sorts(page):
    board = page[page.index('<section id="leaderboard">') : page.index('<section id="verdicts">')]
    assert '<table class="sortable">' in board and '<span class="us"><a href="ours.html">ours</a></span>' in board
    assert '<span class="them"><a href="momentum.html">momentum</a></span>' in board
    assert board.index("momentum.html") < board.index("always_hold.html") < board.index("ours.html")
    assert 'class="badge bad">LOSES' in board and "2 test blocks, 2024-01-03 to 2024-08-21" in board


def test_a_subject_without_a_page_is_named_and_not_linked():
    board, equity = frames({"momentum": 0.001, "ours": 0.0})
    rows, equity = verdict_rows(board, equity), equity.filter((pl.col("subject") != "ours") | (pl.col("fold") == "2024-06-03"))
    told = (board, equity, trades(["momentum", "ours"]), judged(["ours"]), difference_rows({}), {})
    linked, plain = report_html(rows, *told), report_html(rows, *told, pageless=["ours", "momentum"])
    for name in ("leaderboard", "answers", "told-apart", "symbols"):
        part = f'<section id="{name}">'
        assert 'href="ours.html"' in linked[linked.index(part) :].partition("</section>")[0]
        assert '<span class="us">ours</span>' in plain[plain.index(part) :].partition("</section>")[0]
    # A baseline over fewer blocks than it has, too.
    assert 'href="ours.html"' not in plain and 'href="momentum.html"' not in plain


def test_without_a_page_is_what_is_made_by_name_alone_and_was_not():
    assets = {f"reports.pages.{name}": SimpleNamespace(optional=name != "gbm") for name in ("gbm", "made", "later")}
    assets |= {"reports.pages": SimpleNamespace(optional=False), "reports.paths.other": SimpleNamespace(optional=True)}
    with duckdb.connect() as cursor:
        cursor.execute("attach ':memory:' as lake; create schema lake.reports")
        build = SimpleNamespace(project=SimpleNamespace(assets=assets), cursor=cursor, filled=set())
        assert pageless(build) == {"made", "later"}
        cursor.execute("create table lake.reports.pages as select unnest(['index', 'made']) as page")
        assert pageless(SimpleNamespace(**vars(build) | {"filled": {"reports.pages"}})) == {"later"}


def test_who_was_traded_on_few_blocks_stands_beside_the_baselines_of_just_those():
    """The baseline earned 1 % on one day of the later block and lost 1 % on one of the earlier; ours has the later one."""
    days = {f: [first + timedelta(days=i) for i in range(40)] for f, first in FOLDS.items()}
    gained = {"2024-01-02": -0.01, "2024-06-03": 0.01}
    rows = [
        (s, f, day, gained[f] if i == 5 else 0.0)
        for s, folds in (("momentum", FOLDS), ("scaled", FOLDS), ("ours", ["2024-06-03"]))
        for f in folds
        for i, day in enumerate(days[f])
    ]
    equity = pl.DataFrame(rows, schema=["subject", "fold", "session", "ret"], orient="row")
    kinds = {"momentum": "baseline", "scaled": "strategy", "ours": "adapter"}
    counts = dict.fromkeys(kinds, 2)
    tried = fit_trials(equity, dict.fromkeys(kinds, "h"), {})
    found = records(verdicts(curves(equity, counts), kinds, ["momentum"], tried, 5), equity, ["scaled"])
    made = trades(["momentum", "scaled"]).vstack(trades(["ours"]).filter(fold="2024-06-03"))
    whole, later = groups(found, equity, made)
    assert {r.subject for r in whole.found} == {"momentum", "scaled"} and whole.folds == tuple(FOLDS)
    assert {r.subject: r.gained for r in later.found} == pytest.approx({"momentum": 0.01, "scaled": 0.01, "ours": 0.01})
    assert {r.subject: r.trades for r in later.found} == {"momentum": 2, "scaled": 2, "ours": 2}
    assert [r.word for r in later.found if r.subject == "momentum"] == [None] and len(later.found[0].ret) == 39
    assert headline(found) == "The one subject tested does not beat the strongest baseline over its sessions; 0 lose to it."
    assert board(later).count("badge") == 1


def test_controls_are_not_counted_and_spans_do_not_mix():
    """Over one block of two ours is ahead of all, and still comes after who was traded on both."""
    board, equity = frames({"momentum": 0.001, "coin": 0.002, "even": 0.0, "ours": 0.004})
    equity = equity.filter((pl.col("subject") != "ours") | (pl.col("fold") == "2024-06-03"))
    rows = verdict_rows(board, equity).with_columns(overfitting_probability=pl.lit(0.25))
    found = records(rows, equity, controls=["coin"])
    assert [r.subject for r in found] == ["coin", "momentum", "even", "ours"]
    assert [r.role for r in found] == ["control", "baseline", "adapter", "adapter"]
    assert [span(r, found) for r in found] == ["", "", "", "1 block"]
    assert "2 subjects" in headline(found) and "coin" not in headline(found)
    whole, later = groups(found, equity, trades(["momentum", "coin", "even", "ours"]))
    assert {r.subject for r in later.found} == {"momentum", "coin", "ours"} and "coin" in {r.subject for r in whole.found}
    made = report_html(
        rows, board, equity, trades(["coin", "ours"]), judged(["ours"]), difference_rows({}), {}, controls=["coin"]
    )
    assert "of 2 tested" in made and "Sharpe, momentum" in made and "of the 3 subjects with 2 test blocks" in made
    gained = made[made.index('<section id="symbols">') :]
    assert gained.index("coin.html") < gained.index("ours.html") < gained.index("<small>1 block</small>")


def test_what_is_said_of_the_universe_is_of_the_shipped_one():
    assert hindsight(["IBM", "AAPL", "MSFT", "GOOG", "FB"]) == HINDSIGHT
    other, one = hindsight(["IBM", "KO"]), hindsight(["KO"])
    assert other.startswith("2 instruments are traded") and one.startswith("One instrument is") and "five" not in other + one


def test_only_answers_in_text_can_be_unparseable():
    """Of two blocks of 5,564 answers each; a rule cannot fail to parse."""
    board, equity = frames({"momentum": 0.0, "ours": 0.001})
    many = pl.when(pl.col("metric") == "n").then(5_564.0).otherwise("value")
    made = answers_table(judged(["ours", "momentum"]).with_columns(value=many), records(verdict_rows(board, equity), equity))
    assert made.count("unparseable") == 1 and made.count("11,128") == 2 and made.index("ours.html") < made.index("unparseable")


def test_what_speaks_against_the_figures_has_a_section(page):
    head, body = page[: page.index("<section")], page[page.index('<section id="against">') :]
    assert '<a href="#against">' in head
    for title, text in DETAILS:
        assert title in body and text in body and text not in head
    said = " ".join(text for _, text in DETAILS)
    assert "first test block" in said and "10 bps" in said and "borrow fee" in said


def test_page_is_self_contained_and_small(page):
    assert len(page.encode()) < 3_000_000
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:""", page)
    assert "prefers-color-scheme: dark" in page and "cdn.plot" not in page
    drawn = figures_of(page)
    assert set(drawn) == {"equity_0", "sharpe_0", "differences", "blocks", "actions", "exits"}
    assert all(chart(name) in page for name in drawn)


def test_names_cannot_break_the_page(page):
    assert "</script><b>" not in page and "&lt;/script&gt;&lt;b&gt;" in page


def test_bytes_repeat(page):
    assert render() == page
    board, equity = frames({"always_hold": 0.0, "ours": 0.001})
    assert preview_png(verdict_rows(board, equity), equity) == preview_png(verdict_rows(board, equity), equity)
    assert preview_png(verdict_rows(board, equity), equity).startswith(b"\x89PNG")


def test_another_process_writes_the_same_bytes(page):
    """With another seed of hashes, so that an order taken from a set would show."""
    code = "import sys; from tests.tapehouse.test_report import render; sys.stdout.write(render())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == page


def test_curves_are_chained_and_thinned():
    """Two blocks of a session each: 1.1 * 0.5 - 1 = -45 %, after a high of 10 %. A long curve keeps both ends."""
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(4)]
    row = {"sharpe": 0.0, "trades": 1, "verdict": LOSES}
    own = Record("ours", "adapter", np.array([0.1, -0.5]), (days[1], days[3]), row)
    gained, fallen = equity_figure([own], [days[0], days[2]])["data"]
    assert gained["x"] == ["2024-01-02", "2024-01-04"] and gained["y"] == [10.0, -45.0] and fallen["y"] == [0.0, -50.0]
    long = Record("ours", "adapter", np.full(2_000, 0.001), tuple(days[0] + timedelta(days=i) for i in range(2_000)), row)
    line = equity_figure([long])["data"][0]
    assert len(line["x"]) == len(line["y"]) < 800 and line["x"][-1] == long.sessions[-1].isoformat()
    assert line["y"][-1] == pytest.approx(1.001**2_000 * 100, abs=0.01)  # the worth of 100
    axes = [equity_figure([record])["layout"]["yaxis"].get("type") for record in (own, long)]
    assert axes == [None, "log"]


def test_only_pairs_that_can_be_told_apart_are_coloured():
    board, equity = frames({"momentum": 0.0, "ours": 0.004, "even": 0.0})
    found = records(verdict_rows(board, equity), equity)
    assert [r.subject for r in found] == ["ours", "even", "momentum"]
    rows = difference_rows(curves(equity, {}))
    (map_,) = differences_figure(rows, found)["data"]
    told = {(y, x): map_["z"][i][j] for i, y in enumerate(map_["y"]) for j, x in enumerate(map_["x"])}
    assert told["ours", "momentum"] == -told["momentum", "ours"] > 1
    assert told["even", "momentum"] is None and told["ours", "ours"] is None
    text = map_["text"][map_["y"].index("ours")][map_["x"].index("momentum")]
    assert text.endswith("158 sessions") and text.startswith("+")


def test_most_lines_wait_in_the_legend():
    row = {"sharpe": 0.1, "trades": 1, "verdict": LOSES}
    sessions = (*FOLDS.values(), date(2024, 9, 1))
    found = [
        Record(f"{kind}{i}", kind, np.zeros(3), sessions, {**row, "sharpe": i / 10}, kind == "baseline")
        for kind in ("adapter", "baseline")
        for i in range(9)
    ]
    shown = first_shown(found, ["baseline0", "nobody"])
    assert shown == {*(f"adapter{i}" for i in (4, 5, 6, 7, 8)), "baseline7", "baseline8", "baseline0"}
    drawn = equity_figure(found, named=["baseline0"])["data"]
    assert {line["name"] for line in drawn if "visible" not in line} == shown
    assert len({(s["color"], s["dash"]) for s in styles(found).values()}) >= 15


def test_what_would_mislead_is_refused():
    board, equity = frames({"always_hold": 0.0, "ours": 0.001})
    found, arguments = verdict_rows(board, equity), (trades(["ours"]), judged(["ours"]), difference_rows({}), {})
    with pytest.raises(ValueError, match="leaderboard is empty"):
        report_html(found, board.clear(), equity, *arguments)
    with pytest.raises(ValueError, match="no rows in reports"):
        report_html(found, board, equity.filter(subject="ours"), *arguments)


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_figures_have_a_true_minus_and_no_negative_zero(value, digits):
    text = number(value, digits)
    assert "-" not in text
    assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(value, abs=0.51 * 10**-digits)
    assert not re.fullmatch("\N{MINUS SIGN}[0.]+", text)
    assert percent(value).startswith(("+", "\N{MINUS SIGN}", "0"))


def test_provenance_names_what_it_takes_to_repeat(tmp_path):
    at = datetime(2024, 1, 2, tzinfo=UTC)
    folds = pl.DataFrame({"fold": ["2024-01-02"], "train_start": [at], "train_end": [at], "test_start": [at], "test_end": [at]})
    adapters = pl.DataFrame(
        {
            "adapter": ["ours"],
            "fold": ["2024-01-02"],
            "method": ["sft"],
            "recipe_hash": ["f" * 32],
            "seed": [7],
            "snapshot": [12],
            "rows": [100],
            "digest": ["d" * 64],
        }
    )
    entries = provenance(15, {"git_commit": "a" * 40, "git_dirty": True}, folds, adapters)
    assert list(entries)[:2] == ["snapshot", "commit"]
    assert entries["commit"] == "a" * 12 + " with uncommitted changes"
    assert "seed 7" in entries["ours 2024-01-02"] and "snapshot 12" in entries["ours 2024-01-02"]
    assert provenance(15, {"git_commit": None, "git_dirty": None}, folds, adapters)["commit"] == "no repository"
    (tmp_path / "reports").mkdir()
    page = tmp_path / "reports" / "index.html"
    page.write_text("x")
    row = page_row("index", page, tmp_path, 15, {"git_commit": None})
    assert (row["path"], row["bytes"], row["git_commit"]) == ("reports/index.html", 1, None)
