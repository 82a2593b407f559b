"""What one subject traded: entries and exits on the price chart of each symbol and block, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import polars as pl

from tapehouse.report.figures import EXIT_WORDS
from tapehouse.report.section import Section, Subject
from tapehouse.report.shell import chart, choice, table
from tapehouse.report.verdict import number, percent

GOOD, BAD, INK = "var(--good)", "var(--bad)", "var(--soft)"
CHART_HEIGHT = 340
SIDES = {"BUY": ("long", "triangle-up"), "SELL": ("short", "triangle-down")}


def price_section(subject: Subject) -> Section | None:
    """The price of a symbol over a block, with every trade on it: buttons choose the symbol, then the block."""
    trades, equity = subject.rows("reports.backtest_trades"), subject.rows("reports.backtest_equity")
    if trades is None or equity is None or subject.prices.is_empty():
        return None
    spans = equity.group_by("fold").agg(pl.col("session").min().alias("first"), pl.col("session").max().alias("last"))
    placed = _in_one_basis(trades, subject.prices)
    figures, symbols = {}, {}
    for symbol in sorted(trades["symbol"].unique()):
        blocks = {}
        for fold, first, last in spans.sort("fold", descending=True).iter_rows():
            own = placed.filter((pl.col("symbol") == symbol) & (pl.col("fold") == fold))
            price = subject.prices.filter((pl.col("symbol") == symbol) & pl.col("session").is_between(first, last))
            if price.is_empty():
                continue
            name = f"trades-{len(symbols)}-{len(blocks)}"
            figures[name] = _price_figure(price.sort("session"), own.sort("trade_id"))
            gained = f", net {number(own['pnl'].sum() / 1000, 1)} thousand" if own.height else ""
            told = f'<p class="note">{escape(symbol)}, block {escape(fold)}: {_trades(own.height)}{gained}.</p>'
            blocks[fold] = told + chart(name)
        symbols[symbol] = choice(blocks)
    note = (
        "Close, in the basis of the last day known (splits taken out). Triangles up are bought, down sold short; a line leads "
        "from the entry to the exit, green where the trade gained after costs. Prices are the fills', slippage included."
    )
    return Section("trades", "Trades on the price", choice(symbols), note, figures)


def outcome_section(subject: Subject) -> Section | None:
    """How positions ended, and what was earned by symbol, side and regime."""
    trades = subject.rows("reports.backtest_trades")
    if trades is None:
        return None
    regimes = subject.rows("features.regime")
    if regimes is not None:
        known = regimes.select("symbol", "decision_at", "regime")
        trades = trades.join(known, on=["symbol", "decision_at"], how="left", maintain_order="left")
        trades = trades.with_columns(pl.col("regime").fill_null("not known"))
    told = trades.with_columns(
        bps=pl.col("pnl") / (pl.col("shares") * pl.col("entry_price")) * 1e4,
        side=pl.col("side").replace_strict({k: v[0] for k, v in SIDES.items()}),
        exit_reason=pl.col("exit_reason").replace_strict(EXIT_WORDS),
        all=pl.lit("all"),
    )
    parts = []
    for title, column in (
        *(("By end", "exit_reason"), ("By symbol", "symbol"), ("By side", "side")),
        *((("By regime at the decision", "regime"),) if regimes is not None else ()),
    ):
        rows = [*_outcomes(told, column), *(_outcomes(told, "all") if column == "exit_reason" else ())]
        parts.append(f"<div><h3>{title}</h3>{table(('what', 'trades', 'won', 'mean, bps', 'net, thousands'), rows)}</div>")
    note = "Net of all costs; bps of the entry's notional. Thousands of currency, on an opening equity of a million a block."
    return Section("outcomes", "How positions ended", f'<div class="two">{"".join(parts)}</div>', note)


def _outcomes(told: pl.DataFrame, column: str) -> Sequence[tuple[str, ...]]:
    by = told.group_by(column).agg(
        pl.len().alias("trades"), (pl.col("pnl") > 0).mean().alias("won"), pl.col("bps").mean(), pl.col("pnl").sum()
    )
    return [
        (escape(str(level)), f"{count:,}", percent(won, 0).lstrip("+"), number(bps, 0), number(pnl / 1000, 1))
        for level, count, won, bps, pnl in by.sort(column).iter_rows()
    ]


def _trades(count: int) -> str:
    return "1 trade" if count == 1 else f"{count:,} trades"


def _in_one_basis(trades: pl.DataFrame, prices: pl.DataFrame) -> pl.DataFrame:
    """Trades with the prices of their fills in the basis of the chart; a fill on a day without a bar keeps its raw price."""
    factors = prices.select("symbol", "session", "factor")
    for end in ("entry", "exit"):
        named = factors.rename({"session": f"{end}_session", "factor": f"{end}_factor"})
        trades = trades.join(named, on=["symbol", f"{end}_session"], how="left", maintain_order="left")
        trades = trades.with_columns((pl.col(f"{end}_price") * pl.col(f"{end}_factor").fill_null(1.0)).alias(f"{end}_at"))
    return trades


def _price_figure(price: pl.DataFrame, trades: pl.DataFrame) -> dict:
    days = [day.isoformat() for day in price["session"]]
    close = [round(c * f, 4) for c, f in price.select("close", "factor").iter_rows()]
    line = {"color": INK, "width": 1.3}
    common = {"type": "scatter", "showlegend": False}
    data = [{**common, "mode": "lines", "name": "close", "x": days, "y": close, "line": line, "hovertemplate": "%{y:.2f}"}]
    for colour, own in ((GOOD, trades.filter(pl.col("pnl") > 0)), (BAD, trades.filter(pl.col("pnl") <= 0))):
        if own.is_empty():
            continue
        days_of, at, symbols, texts, sizes = [], [], [], [], []
        for t in own.iter_rows(named=True):
            word, mark = SIDES[t["side"]]
            out = f"{t['exit_session']:%Y-%m-%d}: {EXIT_WORDS[t['exit_reason']]}, net {number(t['pnl'], 0)}"
            days_of += [t["entry_session"].isoformat(), t["exit_session"].isoformat(), None]
            at += [round(t["entry_at"], 4), round(t["exit_at"], 4), None]
            symbols += [mark, "x-thin-open", mark]
            sizes += [10, 7, 1]
            texts += [f"{word} {number(t['shares'], 0)} shares", f"{word} closed {out}", ""]
        data.append(
            {**common, "mode": "lines+markers", "name": "", "x": days_of, "y": at, "text": texts,
             "line": {"color": colour, "width": 1.2, "dash": "dot"}, "hovertemplate": "%{y:.2f}: %{text}",
             "marker": {"color": colour, "symbol": symbols, "size": sizes, "line": {"color": colour, "width": 1.5}}}
        )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": CHART_HEIGHT,
            "margin": {"l": 58, "r": 12, "t": 8, "b": 30},
            "hovermode": "closest",
            "xaxis": {"type": "date", "rangebreaks": [{"bounds": ["sat", "mon"]}]},
            "yaxis": {"title": {"text": "price"}, "zeroline": False},
        },
    }
