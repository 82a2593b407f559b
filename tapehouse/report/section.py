"""What the page of one subject is made of: its rows of the reports' tables, and the sections that are written from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from html import escape
from typing import Any, Final

import polars as pl

from tapehouse.adjustment import adjusted_prices
from tapehouse.metrics import sharpe
from tapehouse.report.verdict import Record, records

ADAPTER, STRATEGY = "adapter", "strategy"
PRICES: Final = {"symbol": pl.String, "session": pl.Date, "close": pl.Float64, "factor": pl.Float64}


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own.

    Attributes:
        name: what links point at. title: as text. body, note: HTML already; a note says how to read what follows.
        figures: id to a Plotly figure; the body has a chart for each.
    """

    name: str
    title: str
    body: str
    note: str = ""
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """One recipe or strategy, and what was found of it.

    Attributes:
        kind: adapter, policy, baseline or strategy.
        declared: the YAML that declares it, as text. source: where that lies, from the project folder.
        predictors: recipes whose answers a strategy trades on, each with its own rows of the tables over the blocks that the
            strategy was traded on; empty for a recipe, which has answers of its own.
        record: its verdict and its returns over all blocks joined; None for what trades nothing.
        baselines: the declared baselines that cover its sessions, and their returns over those, strongest first.
        tables: table name to its own rows of it; of `reports.backtest_equity`, `reports.evaluations` and so on.
        prices: `symbol`, `session`, `close` (raw), `factor` (what turns a raw price of that day into one of the last day).
        pageless: predictors without a page of their own.
    """

    name: str
    kind: str
    description: str
    declared: str
    source: str
    predictors: Mapping[str, Mapping[str, pl.DataFrame]]
    record: Record | None
    baselines: Mapping[str, pl.Series]
    tables: Mapping[str, pl.DataFrame]
    prices: pl.DataFrame
    pageless: frozenset[str] = frozenset()

    def page_of(self, predictor: str, part: str = "") -> str | None:
        """Where the page of a predictor lies, None where there is none; `part` is a section of it."""
        return None if predictor in self.pageless else f"{predictor}.html{part}"

    def rows(self, table: str) -> pl.DataFrame | None:
        """Its rows of a table; None where there are none."""
        found = self.tables.get(table)
        return None if found is None or found.is_empty() else found

    def predictor(self, name: str) -> Subject:
        """One of its predictors by what it answered alone: no account, no verdict."""
        answered = {"tables": self.predictors[name], "predictors": {}, "record": None, "baselines": {}}
        return replace(self, name=name, prices=self.prices.clear(), **answered)


def subject_of(
    name: str,
    description: str,
    declared: str,
    source: str,
    predictors: Sequence[str],
    tables: Mapping[str, pl.DataFrame],
    market: tuple[pl.DataFrame, pl.DataFrame],
    baselines: Sequence[str],
    until: datetime,
    controls: Sequence[str] = (),
    pageless: Collection[str] = (),
) -> Subject:
    """A subject out of the rows of its warehouse.

    Args:
        name, description, declared, source: as of :class:`Subject`. predictors: their names.
        tables: table name to rows, its own and its predictors' or those of all subjects; all in `reports.verdicts` and
            `reports.backtest_equity`.
        market: rows of `staging.bars` and `raw.corporate_actions`.
        baselines, controls: names of the declared ones. until: the time whose basis prices are shown in.
        pageless: subjects without a page of their own.

    Raises:
        ValueError: the subject has a verdict and no equity curve.
    """
    equity, verdicts = tables["reports.backtest_equity"], tables["reports.verdicts"].filter(subject=name)
    own = equity.filter(subject=name)
    record = next(iter(records(verdicts, own, baselines, controls)), None)
    kind = record.kind if record else _kind(tables.get("models.adapters"))
    trades = tables.get("reports.backtest_trades")
    symbols = trades["symbol"].unique() if trades is not None else pl.Series([], dtype=pl.String)
    bars, actions = (rows.filter(pl.col("symbol").is_in(symbols.implode())) for rows in market)
    prices = pl.DataFrame(schema=PRICES)
    if len(symbols):
        prices = adjusted_prices(bars, actions, until, dividends=False).select(list(PRICES))
    return Subject(
        name,
        kind,
        description,
        declared,
        source,
        {other: _of_predictor(other, tables, own["fold"]) for other in predictors},
        record,
        _baselines(name, record, equity, baselines),
        {table: _own(rows, name, own["fold"]) for table, rows in tables.items()},
        prices,
        frozenset(pageless) & set(predictors),
    )


def _own(rows: pl.DataFrame, name: str, folds: pl.Series) -> pl.DataFrame:
    """The subject's rows; of what is said of folds alone, those of its folds."""
    if "subject" in rows.columns:
        return rows.filter(subject=name)
    return rows.filter(pl.col("fold").is_in(folds.unique().implode())) if "fold" in rows.columns and len(folds) else rows


def _of_predictor(name: str, tables: Mapping[str, pl.DataFrame], folds: pl.Series) -> dict[str, pl.DataFrame]:
    """A predictor's rows of what is told of subjects fold by fold, in the folds that were traded."""
    traded = pl.col("fold").is_in(folds.unique().implode())
    return {t: rows.filter(traded, subject=name) for t, rows in tables.items() if {"subject", "fold"} <= set(rows.columns)}


def _kind(adapters: pl.DataFrame | None) -> str:
    return STRATEGY if adapters is None or adapters.is_empty() else adapters["kind"][0]


def _baselines(name: str, record: Record | None, equity: pl.DataFrame, names: Sequence[str]) -> dict[str, pl.Series]:
    """Returns of the declared baselines that were traded on every session of the subject, strongest first; cash counts as 0."""
    if record is None or not record.sessions:
        return {}
    over = pl.DataFrame({"session": record.sessions})
    found = {}
    for other in names:
        if other != name:
            own = equity.filter(subject=other).select("session", "ret")  # a session belongs to one block: they do not overlap
            found[other] = over.join(own, on="session", how="left", maintain_order="left")["ret"]
    whole = {other: ret for other, ret in found.items() if ret.null_count() == 0}
    return dict(sorted(whole.items(), key=lambda item: (-(sharpe(item[1].to_numpy()) or 0.0), item[0])))


def heat_table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, float | None]]]], wide: bool = True) -> str:
    """A table whose cells are coloured by value.

    Args:
        heads: as text, one for the row's name and one a column.
        rows: name of the row as text; for each column its text, and its strength from -1 (bad) to 1 (good), None for no colour.
        wide: whether the table takes the page's width.
    """
    top = f'<th class="word">{escape(heads[0])}</th>' + "".join(f"<th>{escape(h)}</th>" for h in heads[1:])
    body = "".join(
        f'<tr><td class="word">{escape(name)}</td>' + "".join(_heat_cell(text, value) for text, value in cells) + "</tr>"
        for name, cells in rows
    )
    size = "" if wide else ' style="width:auto"'
    return f'<div class="scroll"><table class="heat"{size}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _heat_cell(text: str, value: float | None) -> str:
    if value is None:
        return f"<td>{escape(text)}</td>"
    share = round(min(abs(value), 1.0) * 60)
    name = "--good" if value > 0 else "--bad"
    return f'<td style="background:color-mix(in srgb,var({name}) {share}%,transparent)">{escape(text)}</td>'
