"""Label tables that cheat, each in a way that real code has cheated: what they say was not known when they claim it was."""

from tests.house import House

READS = """
from tapehouse.tables import reads, table


@table(
    reads("features.price", lookback_months={lookback}, lookahead_months={lookahead}),
    reads("staging.bars", lookback_months=1, lookahead_months=2),
    reads("raw.corporate_actions", lookback_months=1, lookahead_months=2),
)
def build(b):
    from datetime import timedelta

    import polars as pl

    from tapehouse.calendars import all_sessions

    sessions, day = all_sessions(b.settings.universe.calendar), timedelta(days=1)
    prices = b.read("features.price").filter(~pl.col("symbol").str.starts_with("^"))
    versions, actions = b.read("staging.bars"), b.read("raw.corporate_actions")
"""
KEYS = """
time: decision_at
cutoff: label_known_at
columns:
  symbol: {type: varchar, doc: "Ticker."}
  interval: {type: varchar, doc: "Length of the bars."}
  decision_at: {type: timestamptz, doc: "When it was decided."}
  label_known_at: {type: timestamptz, doc: "When it claims to have been known."}
"""


def cheat(first_line: str, body: str, columns: str, lookback: int = 0, lookahead: int = 0) -> tuple[str, str]:
    """An asset file and its check file."""
    lines = "\n".join(f"    {line}" if line else "" for line in body.strip("\n").splitlines())
    reads = READS.replace("{lookback}", str(lookback)).replace("{lookahead}", str(lookahead))
    return f'"""One row per (symbol, interval, decision_at): {first_line}"""\n{reads}\n{lines}\n', KEYS + columns


VALUE = '  value: {type: double, doc: "What the cheat gains."}\n'
LEAKS = {
    # Held from the next open, as it should be, but the end is counted from the decision's own session: the last bar that
    # the return looks at closes one session after the row claims to be over.
    "labels.unshifted_end": cheat(
        "a return of three sessions that claims to be known at the end of the second.",
        """
from tapehouse.labels.forward import forward_returns

rows = forward_returns(versions, actions, prices, b.start, b.end, sessions, "^GSPC", horizons=(2, 3))
key = ["symbol", "interval", "decision_at"]
early = rows.filter(horizon=2).select(*key, label_known_at="label_end_at")
return rows.filter(horizon=3).select(*key, value="ret").join(early, on=key)
""",
        VALUE,
    ),
    # Entered at the close that made the decision, and known, it says, when its first bar after the entry has only opened.
    "labels.unshifted_entry": cheat(
        "the return of the next session from the decision's own close, known at that session's open.",
        """
from tapehouse.labels.forward import forward_returns

rows = forward_returns(versions, actions, prices, b.start, b.end, sessions, "^GSPC", horizons=(1,))
price = prices.select("symbol", "interval", "decision_at", "close")
rows = rows.join(price, on=["symbol", "interval", "decision_at"])
value = pl.col("entry_price") * (1 + pl.col("ret")) / pl.col("close") - 1
return rows.select("symbol", "interval", "decision_at", label_known_at="entry_at", value=value)
""",
        VALUE,
    ),
    # Barriers in units of a volatility that is centred on the decision.
    "labels.centred_width": cheat(
        "the label of barriers as wide as the price moves around the decision.",
        """
from tapehouse.labels.barriers import BarrierSpec
from tapehouse.labels.triple_barrier import triple_barrier

moves = pl.col("ret_1d").abs().rolling_median(21, center=True, min_samples=2).over("symbol", order_by="decision_at")
width = prices.with_columns(realised_vol_20d=moves * 16)
spec = BarrierSpec(unit="volatility", profit=2, stop=2, horizon_bars=4, sides=(1,))
rows = triple_barrier(versions, actions, width, b.start, b.end, sessions, spec)
return rows.select("symbol", "interval", "decision_at", "label_known_at", value="upper")
""",
        VALUE,
        lookback=1,
        lookahead=1,
    ),
    # The newest version of every bar instead of the one that had settled: late corrections reach back.
    "labels.corrected": cheat(
        "a return from the versions of bars that are known today.",
        """
from tapehouse.labels.forward import forward_returns

latest = versions.filter(pl.col("superseded_at").is_null()).with_columns(known_at=pl.col("event_at"))
rows = forward_returns(latest, actions, prices, b.start, b.end, sessions, "^GSPC", horizons=(2,))
return rows.select("symbol", "interval", "decision_at", "label_known_at", value="ret")
""",
        VALUE,
    ),
    # Weights scaled by the mean of the whole sample, which is not over yet.
    "labels.scaled_weight": cheat(
        "attributed return over the mean of all there are.",
        """
from tapehouse.labels.concurrency import concurrency
from tapehouse.labels.triple_barrier import triple_barrier

far = b.start - 60 * day, b.end + 60 * day
labels = triple_barrier(versions, actions, prices, *far, sessions).filter(side=1)
rows = concurrency(labels, versions, actions, *far, sessions)
scaled = rows.with_columns(value=pl.col("attributed_ret") / pl.col("attributed_ret").mean())
inside = pl.col("decision_at").is_between(b.start, b.end, closed="left")
return scaled.filter(inside).select("symbol", "interval", "decision_at", "label_known_at", "value")
""",
        VALUE,
        lookback=1,
        lookahead=1,
    ),
    # Classes cut at the quantiles of the whole sample.
    "labels.pooled_classes": cheat(
        "the class of the signal, cut at quantiles of scores that are still to come.",
        """
from tapehouse.labels.signal import classes, fit_quantiles, signal_scores

rows = signal_scores(versions, actions, prices, b.start - 60 * day, b.end + 60 * day, sessions)
cuts = fit_quantiles(rows["score"].drop_nulls())
named = rows.with_columns(value=classes(rows["score"], cuts), lowest=pl.lit(cuts[0]))
inside = pl.col("decision_at").is_between(b.start, b.end, closed="left")
return named.filter(inside).select("symbol", "interval", "decision_at", "label_known_at", "value", "lowest")
""",
        '  value: {type: varchar, doc: "The class."}\n  lowest: {type: double, doc: "The lowest threshold."}\n',
        lookback=1,
        lookahead=1,
    ),
}
# Bought at the open of the session whose close decided: no later record can show it, the contract can.
UNSHIFTED_OPEN = """
from tapehouse.labels.triple_barrier import triple_barrier

before = pl.concat([sessions["session"].head(1), sessions["session"].head(len(sessions) - 1)])
shift = pl.DataFrame({"session": sessions["session"], "before": before})
earlier = prices.join(shift, on="session").drop("session").rename({"before": "session"})
return triple_barrier(versions, actions, earlier, b.start, b.end, sessions)
"""


def plant(house: House, *tables: str) -> None:
    """Add the cheating `tables` (default: all) to a project, and read it again."""
    for table in tables or LEAKS:
        asset, checks = LEAKS[table]
        path = table.replace(".", "/")
        house.write(f"assets/{path}.py", asset)
        house.write(f"checks/{path}.yaml", checks)
    house.reload()


def plant_unshifted_open(house: House, table: str) -> None:
    """Enter at the open before the decision, under the contract of the real table."""
    asset, _ = cheat("a label whose entry lies before its decision.", UNSHIFTED_OPEN, "")
    path = table.replace(".", "/")
    house.write(f"assets/{path}.py", asset.replace("decision_at):", "decision_at, side):"))
    house.write(f"checks/{path}.yaml", (house.home / "checks/labels/triple_barrier.yaml").read_text())
