"""The page of a run: the outcome in words and what speaks against it, then the leaderboard, figures and tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

import polars as pl

from tapehouse import metrics
from tapehouse.backtest.config import BacktestConfig
from tapehouse.evaluations import reading
from tapehouse.report import figures, shell
from tapehouse.report.answers import answers_table, pairs_table, unparsed
from tapehouse.report.board import Group, blocks, board, groups
from tapehouse.report.caveats import DETAILS, HINDSIGHT
from tapehouse.report.shell import chart, section, table
from tapehouse.report.verdict import Record, headline, number, percent, records, span
from tapehouse.verdicts import BEATS, INCONCLUSIVE, LOSES

ORIGIN = 2  # entries of the provenance at the head of the page
AGAINST = (
    '<p>The blocks are not wholly unseen, and adapters and baselines execute differently: <a href="#against">what speaks '
    "against these figures</a>.</p>"
)
SORTED = (
    "Positions are closed, at cost, at the end of each block. Who never traded held cash and is not ranked. A click on a head "
    "sorts, a name leads to the subject’s own page. In grey: baselines, and controls, which are no yardstick and not counted "
    "as tested."
)
CURVES = "All blocks joined, after costs; a click in the legend shows or hides a line."
OVERLAP = "Where intervals overlap widely, the order of the leaderboard may be luck. Baselines are diamonds."
APART = (
    "The subject on the left less the one below, over the sessions that both have: coloured where the paired 95 % interval of "
    "the difference of their Sharpe ratios does not hold 0, blank where the two cannot be told apart. Not corrected for the "
    "number of pairs, of which one in twenty would be coloured by luck; <code>tapehouse compare A B</code> has more of any two."
)
LAST = " Who was traded on fewer blocks comes last: ratios of other spans do not rank."
BY_BLOCK = "Return after costs, in per cent. A column of one colour is the market of that block, whoever traded it."
ANSWERED = (
    "Apart from any account: did the answer name the barrier that was reached first, and what did the taken side earn before "
    "costs? Pooled over blocks by the observations behind; small: the 95 % interval, and what the same answers score against "
    "outcomes shuffled among the decisions of the block. Point at a head for its meaning."
)
CONTENTS = (
    ("leaderboard", "Leaderboard"), ("verdicts", "Verdicts"), ("curves", "Equity"), ("ratios", "Sharpe ratios"),
    ("apart", "Told apart"), ("blocks-of-time", "By block"), ("answers", "Answers"), ("symbols", "Symbols"),
    ("against", "What speaks against"), ("provenance", "Provenance"),
)  # fmt: skip
PBO = (
    "Probability of backtest overfitting: over all choices of half of the span, how often the best on it is no better than the "
    "median on the other half."
)
GAINS = "Thousands of currency on an opening equity of a million a block; small: number of trades."


def report_html(
    verdicts: pl.DataFrame,
    leaderboard: pl.DataFrame,
    equity: pl.DataFrame,
    trades: pl.DataFrame,
    evaluations: pl.DataFrame,
    differences: pl.DataFrame,
    provenance: dict[str, str],
    pairs: pl.DataFrame | None = None,
    caveats: Sequence[str] = (HINDSIGHT,),
    baselines: Collection[str] = (),
    controls: Collection[str] = (),
    pageless: Collection[str] = (),
) -> str:
    """One self-contained HTML of a run; the same input gives the same bytes.

    Args:
        verdicts: rows of `reports.verdicts`. leaderboard: rows of `reports.leaderboard`.
        equity, trades, evaluations: rows of `reports.backtest_equity`, `reports.backtest_trades`, `reports.evaluations`.
        differences: rows of `reports.differences`.
        provenance: what the figures were made from, in the order to be shown; the first two, such as snapshot and commit,
            also stand at the head of the page.
        pairs: rows of `datasets.preference_pairs`, for the diagnostics of what adapters learnt from.
        caveats: said on the first screen, before any figure.
        baselines: the declared ones (`models_registry/judging.yaml`), beside all recipes of this kind. controls: likewise.
        pageless: subjects without a page of their own; their names are plain text.

    Raises:
        ValueError: no rows, or a subject without an equity curve.
    """
    if leaderboard.is_empty():
        raise ValueError("the leaderboard is empty: materialise the backtests of at least one recipe")
    found = records(verdicts, equity, baselines, controls, pageless)
    together = groups(found, equity, trades)
    drawn = {"actions": figures.actions_figure(evaluations, found), "exits": figures.exits_figure(trades, found)}
    drawn |= {
        "blocks": figures.blocks_figure(leaderboard, found),
        "differences": figures.differences_figure(differences, found),
    }
    for place, group in enumerate(together):
        starts = (
            equity.filter(pl.col("fold").is_in(group.folds)).group_by("fold").agg(pl.col("session").min())["session"].sort()
        )
        drawn[f"equity_{place}"] = figures.equity_figure(group.found, list(starts))
        drawn[f"sharpe_{place}"] = figures.sharpe_figure(group.found)
    told = "".join(f"<p><b>{escape(head)}</b> {escape(text)}</p>" for head, text in DETAILS)
    paired = pairs_table(evaluations, pageless)
    last = LAST if len(together) > 1 else ""
    parts = (
        shell.over("out-of-sample results", " · ".join(f"{k} {v}" for k, v in list(provenance.items())[:ORIGIN]), index=None),
        f"<h1>{escape(headline(found))}</h1>",
        f"<p>{_scope(found, equity, evaluations)}</p>",
        shell.caveats((*caveats, _thin(equity)), AGAINST),
        shell.tiles(_tiles(found)),
        shell.contents(CONTENTS),
        section("Leaderboard", _boards(together), "leaderboard", SORTED),
        section("Every verdict in words", _verdicts(found, unparsed(evaluations)), "verdicts"),
        section("Equity and drawdown", _panels(together, "equity"), "curves", CURVES),
        section("How sure are the Sharpe ratios?", _panels(together, "sharpe"), "ratios", OVERLAP),
        section("Who can be told apart from whom", chart("differences"), "apart", APART + last),
        section("Block by block", chart("blocks"), "blocks-of-time", BY_BLOCK + last),
        section("Answers against what happened", answers_table(evaluations, found), "answers", ANSWERED),
        section("Pairs told apart", paired, "told-apart", "One half is chance.") if paired else "",
        f'<section class="two"><div><h2>What was answered</h2>{chart("actions")}</div>',
        f"<div><h2>How positions ended</h2>{chart('exits')}</div></section>",
        section("Net gain by symbol", _symbols(trades, found), "symbols", GAINS + last),
        _pairs(pairs),
        section("What speaks against these figures", told, "against"),
        section("Provenance", shell.provenance(provenance), "provenance", "From these the figures can be made again."),
        f"<details><summary>What every figure means</summary>{_glossary()}</details>",
    )
    return shell.framed("Tapehouse: models against simple rules", "\n".join(parts), drawn)


def _scope(found: list[Record], equity: pl.DataFrame, evaluations: pl.DataFrame) -> str:
    answers = reading.figures(evaluations)["n"].max() or 0
    asked = sum(r.kind != "strategy" for r in found)
    costs = BacktestConfig()
    first, last = equity["session"].min(), equity["session"].max()
    # Dates and counts of our own: there is nothing to escape.
    return (
        f"{asked} models and rules were asked the same questions, up to {answers:.0f} a block, over "
        f"{blocks(equity['fold'].n_unique())} from <time>{first}</time> to <time>{last}</time>, adapters over the last ones; "
        f"{len(found) - asked} strategies trade on what they say. Each saw only what was known at its decision and was trained "
        "on what was known before its block. Each has an account of its own that trades at the next session’s prices or later "
        f"and pays {costs.commission_bps:g} bps of commission on every fill and {costs.slippage_bps:g} bps of slippage on all "
        "but resting limits (strategies: as they declare)."
    )


def _thin(equity: pl.DataFrame) -> str:
    sessions, count = equity["session"].n_unique(), equity["fold"].n_unique()
    return (
        f"This is one span of one market: {sessions:,} sessions in {blocks(count)}. The intervals resample blocks of ten "
        "sessions or more. BEATS is corrected for the number of subjects and for all that was tried; LOSES is the upper end of "
        "a 95 % interval without correction, and the intervals shown have none either. The yardstick is the best of the "
        "declared baselines, picked over the very sessions that it then measures. Sharpe ratios are gross of a risk-free rate."
    )


def _tiles(found: list[Record]) -> list[tuple[str, str, str]]:
    tested = [r for r in found if not r.is_baseline]
    words = {word: [r.subject for r in tested if r.word == word] for word in (BEATS, INCONCLUSIVE, LOSES)}
    longest = max(found, key=lambda r: len(r.sessions))
    row = longest.row
    tiles = [(word, str(len(names)), f"of {len(tested)} tested") for word, names in words.items()]
    ranked = [r for r in found if r.is_baseline and not r.is_control and r.trades]
    if ranked:  # of most sessions first
        tiles.append(("strongest baseline", number(ranked[0].sharpe), f"Sharpe, {ranked[0].subject}"))
    tiles.append(("settings tried", f"{row['trials']:,}", f"as many as {number(row['effective_trials'], 0)} independent ones"))
    if row["overfitting_probability"] is not None:
        alike = [r for r in found if set(longest.sessions) <= set(r.sessions)]
        of = f"of the {len(alike)} subjects with {blocks(row['folds'])}"
        tiles.append(("PBO of picking the best", percent(row["overfitting_probability"], 0).lstrip("+"), of))
    return tiles


def _boards(together: list[Group]) -> str:
    return "".join(f"<h3>{escape(group.title)}</h3>{board(group)}" for group in together)


def _panels(together: list[Group], name: str) -> str:
    if len(together) == 1:
        return chart(f"{name}_0")
    return shell.choice({group.title: chart(f"{name}_{place}") for place, group in enumerate(together)})


def _verdicts(found: list[Record], lost: dict[str, str]) -> str:
    items = []
    for record in found:
        if not record.is_baseline:
            share = lost.get(record.subject)
            note = f" {share} of its answers did not parse and acted as HOLD." if share else ""
            items.append(f"<li>{shell.badge(record.word)}<span>{escape(record.sentence + note)}</span></li>")
    return f'<ul class="verdicts">{"".join(items)}</ul>' if items else "<p>Nothing but baselines has been tested.</p>"


def _symbols(trades: pl.DataFrame, found: list[Record]) -> str:
    if trades.is_empty():
        return "<p>No trades.</p>"
    names = sorted(trades["symbol"].unique())
    of = trades.group_by("subject", "symbol").agg(pl.col("pnl").sum(), pl.len())
    gained = {(s, symbol): (pnl, count) for s, symbol, pnl, count in of.iter_rows()}
    body = []
    for record in found:
        cells = [gained.get((record.subject, name)) for name in names]
        if any(cells):
            link = shell.subject(record.subject, record.role, record.link)
            name = f"{link} <small>{span(record, found)}</small>"
            shown = ((f"{number(c[0] / 1000, 1)} <small>{c[1]:,}</small>", c[0]) if c else (number(None), None) for c in cells)
            body.append((name, *shown))
    return table(("subject", *map(escape, names)), body, sortable=True)


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
        (escape(o), f"{n:,}", number(m, 0), *(percent(x, 0).lstrip("+") for x in (far, chosen, rejected)))
        for o, n, m, far, chosen, rejected in by.iter_rows()
    ]
    heads = ("objective", "pairs", "median margin, bps", "farther order chosen", "chosen filled", "rejected filled")
    note = (
        "Two placements of one order, paid by what happened after. Were the farther one chosen far more or less often than "
        'half of the time, a model could learn that alone: <a href="preference_pairs.html">what else the pairs give away '
        "without their prompt</a>."
    )
    return section("Preference pairs", table(heads, body), "pairs", note)


def _glossary() -> str:
    meaning = {"PBO": PBO, **metrics.MEANING, **reading.MEANING}
    entries = [f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in meaning.items()]
    return f"<dl>{''.join(entries)}</dl>"
