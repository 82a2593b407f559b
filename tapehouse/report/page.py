"""The page: words first, then tables and figures, everything inside one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import polars as pl

from tapehouse import metrics
from tapehouse.backtest.config import BacktestConfig
from tapehouse.evaluations import reading
from tapehouse.predictions import ACTIONS
from tapehouse.report import figures, shell
from tapehouse.report.caveats import DETAILS, HINDSIGHT
from tapehouse.report.shell import badge, chart, facts, framed, over, section, table
from tapehouse.report.verdict import Record, headline, number, percent, records

OPEN_BLOCKS = 3  # blocks whose tables are not folded away
ORIGIN = 2  # entries of the provenance at the head of the page
ACCOUNT = ("return", "return_before_costs", "sharpe", "sortino", "max_drawdown", "hit_rate", "turnover", "trades", "exposure")
SHARES = {"return", "return_before_costs", "max_drawdown"}
WHOLE = {"trades"}
AGAINST = (
    '<p>The blocks are not wholly unseen, and adapters and baselines execute differently: <a href="#against">what speaks '
    "against these figures</a>.</p>"
)
JOINED = (
    "Positions are closed, at cost, at the end of each block. Who never traded held cash and is not ranked. Adapters in colour."
)
OVERLAP = "Where intervals overlap widely, the order of the table above may be luck."
ANSWERS = (
    "<p>Apart from any account: did the answer name the barrier that was reached first, and what did the taken side earn "
    "before costs?</p>"
)
HEADS = {
    "return": "return",
    "return_before_costs": "before costs",
    "sharpe": "Sharpe",
    "sortino": "Sortino",
    "max_drawdown": "max drawdown",
    "hit_rate": "hit rate",
    "turnover": "turnover",
    "trades": "trades",
    "exposure": "exposure",
}


def report_html(
    verdicts: pl.DataFrame,
    leaderboard: pl.DataFrame,
    equity: pl.DataFrame,
    trades: pl.DataFrame,
    evaluations: pl.DataFrame,
    provenance: dict[str, str],
    pairs: pl.DataFrame | None = None,
    caveats: Sequence[str] = (HINDSIGHT,),
) -> str:
    """One self-contained HTML of a run; the same input gives the same bytes.

    Args:
        verdicts: rows of `reports.verdicts`. leaderboard: rows of `reports.leaderboard`.
        equity, trades, evaluations: rows of `reports.backtest_equity`, `reports.backtest_trades`, `reports.evaluations`.
        provenance: what the figures were made from, in the order to be shown; the first two, such as snapshot and commit,
            also stand at the head of the page.
        pairs: rows of `datasets.preference_pairs`, for the diagnostics of what adapters learnt from.
        caveats: said on the first screen, before any figure.

    Raises:
        ValueError: no rows, or a subject without an equity curve.
    """
    if leaderboard.is_empty():
        raise ValueError("the leaderboard is empty: materialise the backtests of at least one recipe")
    found = records(verdicts, equity)
    drawn = {
        "equity": figures.equity_figure(found, equity),
        "sharpe": figures.sharpe_figure(found),
        "actions": figures.actions_figure(evaluations, found),
        "exits": figures.exits_figure(trades, found),
    }
    origin = " · ".join(f"{k} {v}" for k, v in list(provenance.items())[:ORIGIN])
    details = "".join(f"<p><b>{escape(head)}</b> {escape(text)}</p>" for head, text in DETAILS)
    parts = (
        over("out-of-sample results", origin, index=None),
        f"<h1>{escape(headline(found))}</h1>",
        f"<p>{_scope(found, equity, evaluations)}</p>",
        shell.caveats((*caveats, _thin(equity)), AGAINST),
        _verdicts(found, evaluations),
        section("All blocks joined", _joined(found), note=JOINED),
        section("Equity and drawdown", chart("equity")),
        section("How sure are the Sharpe ratios?", chart("sharpe"), note=OVERLAP),
        section("Account by block", _blocks(leaderboard), note="Point at a column's head for its meaning."),
        f'<section class="two"><div><h2>What was answered</h2>{chart("actions")}</div>',
        f"<div><h2>How positions ended</h2>{chart('exits')}</div></section>",
        section("Answers against what happened", ANSWERS + _evaluations(evaluations, found)),
        section("Net gain by symbol", _symbols(trades, found)),
        _pairs(pairs),
        section("What speaks against these figures", details, "against"),
        section("Provenance", facts(provenance), note="From these the figures can be made again."),
        f"<details><summary>What every figure means</summary>{_glossary()}</details>",
    )
    return framed("Tapehouse: models against simple rules", "\n".join(parts), drawn)


def _scope(found: list[Record], equity: pl.DataFrame, evaluations: pl.DataFrame) -> str:
    blocks = equity["fold"].n_unique()
    answers = reading.figures(evaluations)["n"].max() or 0
    asked = sum(r.kind != "strategy" for r in found)
    costs = BacktestConfig()
    first, last = equity["session"].min(), equity["session"].max()
    # Dates and counts of our own: there is nothing to escape.
    return (
        f"{asked} models and rules were asked the same questions, up to {answers:.0f} a block, over {_blocks_of(blocks)} from "
        f"<time>{first}</time> to <time>{last}</time>, adapters over the last of them; {len(found) - asked} strategies trade "
        "on what they say. Each saw only what was known at its decision and was trained on what was known before its block. "
        "Each has an account of its own that trades at the next session's prices or later; models and rules pay "
        f"{costs.commission_bps:g} bps of commission on every fill and {costs.slippage_bps:g} bps of slippage on all but "
        "resting limits, and leave at the barriers of their decisions; strategies as they declare."
    )


def _blocks_of(count: int) -> str:
    return "1 test block" if count == 1 else f"{count} test blocks"


def _thin(equity: pl.DataFrame) -> str:
    sessions, blocks = equity["session"].n_unique(), equity["fold"].n_unique()
    return (
        f"This is one window of one market: {sessions} sessions in {_blocks_of(blocks)}. The intervals resample blocks of ten "
        "sessions or more; verdicts are corrected for the number of subjects and for all that was tried, the intervals shown "
        "are not. Sharpe ratios are gross of a risk-free rate."
    )


def _verdicts(found: list[Record], evaluations: pl.DataFrame) -> str:
    wide = reading.figures(evaluations)
    items = []
    for record in found:
        if record.kind == "baseline":
            continue
        lost = figures.weighted(wide.filter(pl.col("subject") == record.subject), "unparseable", "n")
        note = f" {_share(lost, 1)} of its answers did not parse and acted as HOLD." if lost > 0 else ""
        items.append(f"<li>{badge(record.word)}<span>{escape(record.sentence + note)}</span></li>")
    return f'<ul class="verdicts">{"".join(items)}</ul>' if items else ""


def _joined(found: list[Record]) -> str:
    rows = []
    ranked = [r.subject for r in found if r.trades]
    for record in found:
        low, high = record.interval
        between = f"{number(low)} to {number(high)}" if low is not None else number(None)
        place = str(ranked.index(record.subject) + 1) if record.trades else number(None)
        cells = (percent(record.gained), number(record.sharpe if record.trades else None), between)
        row = record.row
        cells += (number(row["difference"] if record.trades else None), number(row["deflated_sharpe"]))
        cells += (percent(record.max_drawdown), str(record.trades), str(len(record.ret)), record.word)
        rows.append((place, record, cells))
    less = _head("less best", "Sharpe ratio less that of the strongest other baseline over the same sessions.")
    deflated = _head("deflated", "Probability that the true ratio is above that of the best of all trials without skill.")
    heads = ("return", "Sharpe", "95 % interval", less, deflated, "max drawdown", "trades", "sessions", "verdict")
    return table(("", "subject", *heads), [(place, _subject(r.subject, r.kind), *cells) for place, r, cells in rows])


def _blocks(leaderboard: pl.DataFrame) -> str:
    heads = ("", "subject", *(_head(HEADS[name], metrics.MEANING[name]) for name in ACCOUNT))
    parts = []
    for (fold,), rows in leaderboard.sort("fold").group_by("fold", maintain_order=True):
        body = []
        for row in rows.sort("rank", "subject", nulls_last=True).iter_rows(named=True):
            cells = [_account_cell(name, row[name]) for name in ACCOUNT]
            body.append((number(row["rank"], 0), _subject(row["subject"], row["kind"]), *cells))
        parts.append(f"<h3>Block {escape(str(fold))}</h3>" + table(heads, body))
    return _latest(parts)


def _latest(parts: list[str]) -> str:
    """The latest blocks, and the earlier ones folded away above them."""
    earlier, shown = parts[:-OPEN_BLOCKS], parts[-OPEN_BLOCKS:]
    folded = f"<details><summary>{len(earlier)} earlier blocks</summary>{''.join(earlier)}</details>" if earlier else ""
    return folded + "".join(shown)


def _account_cell(name: str, value: float | None) -> str:
    if name in SHARES:
        return percent(value)
    return number(value, 0 if name in WHOLE else 2)


def _evaluations(evaluations: pl.DataFrame, found: list[Record]) -> str:
    keys = ["subject", "fold", "level"]
    wide = reading.figures(evaluations).filter(pl.col("n").is_not_null())
    for end in ("low", "high"):
        wide = wide.join(reading.figures(evaluations, what=end), on=keys, how="left", suffix=f"_{end}")
    kinds = {r.subject: r.kind for r in found}
    columns = {
        "n": ("answers", lambda r: number(r["n"], 0)),
        "unparseable": ("unparseable", lambda r: _share(r["unparseable"], 1)),
        "accuracy": ("accuracy", lambda r: _with_interval(r, "accuracy", 1, 2)),
        "mcc": ("MCC", lambda r: number(r["mcc"])),
        "log_loss": ("log loss", lambda r: number(r["log_loss"], 3)),
        "hit_rate": ("hit rate", lambda r: _with_interval(r, "hit_rate", 1, 2)),
        "mean_ret": ("mean return, bps", lambda r: _with_interval(r, "mean_ret", 1e4, 0)),
        "rank_ic": ("rank IC", lambda r: _with_interval(r, "rank_ic", 1, 2)),
    }
    heads = [_head(head, reading.MEANING[name]) for name, (head, _) in columns.items()]
    parts = []
    for (fold,), rows in wide.sort("fold", "subject").group_by("fold", maintain_order=True):
        body = [
            (_subject(row["subject"], kinds.get(row["subject"], "baseline")), *(cell(row) for _, cell in columns.values()))
            for row in rows.iter_rows(named=True)
        ]
        first = rows.row(0, named=True)
        truth = ", ".join(f"{a} {_share(first[f'base_rate_{a.lower()}'])}" for a in ACTIONS)
        note = f'<p class="note">What happened: {escape(truth)} of {number(first["n_labelled"], 0)} labelled decisions.</p>'
        parts.append(f"<h3>Block {escape(str(fold))}</h3>{note}" + table(("subject", *heads), body))
    return _latest(parts)


def _with_interval(row: dict, name: str, factor: float, digits: int) -> str:
    value, low, high = (row[name + end] for end in ("", "_low", "_high"))
    if low is None or high is None:
        return number(None if value is None else value * factor, digits)
    small = f"{number(low * factor, digits)} to {number(high * factor, digits)}"
    return f"{number(value * factor, digits)} <small>{small}</small>"


def _symbols(trades: pl.DataFrame, found: list[Record]) -> str:
    if trades.is_empty():
        return "<p>No trades.</p>"
    names = sorted(trades["symbol"].unique())
    body = []
    for record in found:
        of = trades.filter(pl.col("subject") == record.subject)
        if of.height:
            cells = []
            for name in names:
                some = of.filter(pl.col("symbol") == name)
                gain = f"{number(some['pnl'].sum() / 1000, 1)} <small>{some.height}</small>"
                cells.append(gain if some.height else number(None))
            body.append((_subject(record.subject, record.kind), *cells))
    note = '<p class="note">Thousands of currency on an opening equity of a million a block; small: number of trades.</p>'
    return note + table(("subject", *names), body)


def _pairs(pairs: pl.DataFrame | None) -> str:
    if pairs is None or pairs.is_empty():
        return ""
    farther = pl.col("chosen_offset_atr") > pl.col("rejected_offset_atr")
    by = (
        pairs.group_by("objective")
        .agg(
            pl.len().alias("pairs"),
            pl.col("margin_bps").median().alias("margin"),
            farther.mean().alias("farther"),
            pl.col("chosen_filled").mean().alias("chosen"),
            pl.col("rejected_filled").mean().alias("rejected"),
        )
        .sort("objective")
    )
    body = [
        (escape(o), f"{n}", number(m, 0), *(_share(x) for x in (far, chosen, rejected)))
        for o, n, m, far, chosen, rejected in by.iter_rows()
    ]
    heads = ("objective", "pairs", "median margin, bps", "farther order chosen", "chosen filled", "rejected filled")
    text = (
        "<p>Two placements of one order, paid by what happened after. Were the farther one chosen far more or less often than "
        "half of the time, a model could learn that alone.</p>"
    )
    return f"<section><h2>Preference pairs</h2>{text}{table(heads, body)}</section>"


def _glossary() -> str:
    entries = [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in {**metrics.MEANING, **reading.MEANING}.items()]
    return f"<dl>{''.join(entries)}</dl>"


def _share(value: float | None, digits: int = 0) -> str:
    return percent(value, digits).lstrip("+")


def _subject(name: str, kind: str) -> str:
    return f'<span class="{"them" if kind == "baseline" else "us"}">{escape(name)}</span>'


def _head(text: str, meaning: str) -> str:
    return f'<abbr title="{escape(meaning)}">{escape(text)}</abbr>'
