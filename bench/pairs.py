"""Seconds for preference pairs from bars, 1 M decision points × 2 orders: ours and a plain loop (peer); ratio = peer / ours.

Ours is `tapehouse.pairs.preference_pairs`: settled bars and actions, everything drawn by keyed hashes, both orders rested and
paid, the better one chosen, near ties dropped and counted, the pairs as a frame.

The peer is what such generators usually are: it walks over the decisions one by one, draws side, stratum and offsets (by the
same hash, written in Python's integers), slices the bars of the window out of the symbol's pandas frame, lets each order rest
bar by bar, restates the bars by what has gone ex, pays the orders and appends a dict. It is not charged for the frames. It runs
on a part of the decisions and is charged for all by the pair, since it does the same for each.

Both see the same simulated daily bars with splits and dividends, and one objective of five sessions with the project's costs
and margin. The pairs must be the same, and their rewards equal to 1e-9. Said beside the result: the same loop over lists of
dicts in place of frames. With --quick 100,000 decision points.
"""

import math
import resource
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.keyed import HASH_KEY  # noqa: E402
from tapehouse.orders import KeepRates, Objectives, load_objectives  # noqa: E402
from tapehouse.pairs import TICK_SIZE, Pairs, preference_pairs  # noqa: E402
from tapehouse.prompts.orders import BAND_EDGE  # noqa: E402

AIM = 200.0
SYMBOLS, QUICK_SYMBOLS, SESSIONS = 400, 40, 2_500
EVERY = 10
OBJECTIVE = "patient"
REPEATS = 5
EQUAL = 1e-9
LAG = timedelta(minutes=5)
STAMP = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")
WORD = 2**64
Bar = dict[str, float]
Effects = dict[tuple[str, date], tuple[float, float]]


def declared() -> Objectives:
    """The project's objective of five sessions alone, with the project's costs and margin, every pair kept."""
    whole = load_objectives(ROOT / "objectives.yaml")
    alone = {OBJECTIVE: whole.objectives[OBJECTIVE].model_copy(update={"share": 1.0})}
    return whole.model_copy(update={"objectives": alone, "placements": 1, "keep": KeepRates()})


def calendar(sessions: int) -> pl.DataFrame:
    """`session, open_at, close_at`: one session a day."""
    days = [date(2001, 1, 1) + timedelta(days=n) for n in range(sessions)]
    opens = [datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC) for day in days]
    frame = pl.DataFrame({"session": days, "open_at": opens}, schema_overrides={"open_at": STAMP})
    return frame.with_columns(close_at=pl.col("open_at") + timedelta(hours=6, minutes=30))


def market(symbols: int, sessions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars, actions and decision points of random walks; a tenth of the decisions' bars late, a split and dividends each."""
    draw = np.random.default_rng(7)
    shape = symbols, sessions.height
    steps = draw.normal(0.0, 0.02, shape)
    close = np.round(60.0 * np.exp(np.cumsum(steps - steps.mean(axis=1, keepdims=True), axis=1)), 2)
    opened = np.round(np.roll(close, 1, axis=1) * np.exp(draw.normal(0.0, 0.005, shape)), 2)
    opened[:, 0] = close[:, 0]
    high = np.round(np.maximum(opened, close) * np.exp(np.abs(draw.normal(0.0, 0.008, shape))), 2)
    low = np.round(np.minimum(opened, close) * np.exp(-np.abs(draw.normal(0.0, 0.008, shape))), 2)
    names = np.array([f"S{n:03d}" for n in range(symbols)])
    bars = pl.DataFrame(
        {
            "symbol": np.repeat(names, sessions.height),
            "interval": pl.Series(["1d"]).new_from_index(0, close.size),
            "session": pl.concat([sessions["session"]] * symbols),
            "event_at": pl.concat([sessions["close_at"]] * symbols),
            "known_at": pl.concat([sessions["close_at"]] * symbols),
            **{name: of.ravel() for name, of in (("open", opened), ("high", high), ("low", low), ("close", close))},
            "volume": np.full(close.size, 1_000_000),
            "version": np.ones(close.size, np.int64),
        }
    )
    quarter = range(45, sessions.height, 63)
    acts = [("dividend", place, 1.0, 0.25) for place in quarter] + [("split", sessions.height // 2, 2.0, 0.0)]
    actions = pl.DataFrame(
        [
            (name, kind, sessions["session"][place], ratio, amount, sessions["open_at"][place])
            for name in names
            for kind, place, ratio, amount in acts
        ],
        schema={
            "symbol": pl.String,
            "kind": pl.String,
            "ex_date": pl.Date,
            "ratio": pl.Float64,
            "amount": pl.Float64,
            "known_at": STAMP,
        },
        orient="row",
    ).with_columns(event_at="known_at")
    regimes = np.array(["bullish", "bearish", "sideways"])[draw.integers(0, 3, close.size)]
    points = bars.select("symbol", "interval", pl.col("event_at").dt.offset_by("5m").alias("decision_at"), "session", "close")
    return bars, actions, points.with_columns(atr_14=pl.col("close") * 0.025, regime=pl.Series(regimes))


def ours(bars: pl.DataFrame, actions: pl.DataFrame, points: pl.DataFrame, sessions: pl.DataFrame, what: Objectives) -> Pairs:
    """Our pairs."""
    return preference_pairs(
        points, bars, actions, what, datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), sessions
    )


def effects_of(actions: pl.DataFrame) -> Effects:
    """Effect of each ex-date: what one share becomes, and the cash it gives before."""
    effects: Effects = {}
    for row in actions.sort("symbol", "ex_date", "kind").iter_rows(named=True):
        shares, cash = effects.get((row["symbol"], row["ex_date"]), (1.0, 0.0))
        effects[row["symbol"], row["ex_date"]] = shares * row["ratio"], cash + shares * row["amount"]
    return effects


@lru_cache(maxsize=4096)
def blake(text: str) -> int:
    """The documented hash of a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, key=HASH_KEY).digest(), "little")


def splitmix(state: int) -> int:
    """The finaliser of SplitMix64."""
    state = (state + 0x9E3779B97F4A7C15) % WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % WORD
    return state ^ (state >> 31)


def drawn(decision: dict, what: Objectives) -> tuple[float, float, float]:
    """Side and both offsets of a decision."""
    key = splitmix(blake(f"{decision['symbol']}|{decision['interval']}") ^ splitmix(decision["microseconds"]))
    side, which, near, far = (
        (splitmix(key ^ blake(f"{OBJECTIVE}|1|{part}")) >> 11) / 2**53 for part in ("side", "stratum", "near", "far")
    )
    strata = what.objectives[OBJECTIVE].strata
    stratum = strata[int(which * len(strata))]
    offsets = (low + part * (high - low) for part, (low, high) in ((near, stratum.near), (far, stratum.far)))
    return 1.0 if side < what.buy_share[decision["regime"]] else -1.0, *(round(offset * 100.0) / 100.0 for offset in offsets)


def reward(order: dict, later: list[Bar], effects: Effects, costs, weights) -> tuple[bool, float, float | None]:
    """Whether an order filled, its reward and its markout, bar by bar."""
    side, limit, arrival = order["side"], order["limit"], order["arrival"]
    shares, cash, executed, worst, seen, taken = 1.0, 0.0, None, 0.0, False, False
    for bar in later:
        step, paid = effects.get((order["symbol"], bar["session"]), (1.0, 0.0))
        cash += shares * paid
        shares *= step
        if executed is None:
            opened, high, low = (bar[name] * shares + cash for name in ("open", "high", "low"))
            reach, against = (low, high) if side > 0 else (high, low)
            if side * (limit - reach) > 0:
                executed = opened if side * (limit - opened) > 0 else limit
                taken = executed != limit and not seen
                if taken:
                    paid_price = bar["open"] * (1.0 + side * costs.half_spread_bps / 1e4) * shares + cash
                    executed = min(limit, paid_price) if side > 0 else max(limit, paid_price)
            else:
                worst = max(worst, side * (against / arrival - 1.0))
            seen = True
    end = later[-1]["close"] * shares + cash
    filled = executed is not None
    if not filled:
        executed = later[-1]["close"] * (1.0 + side * costs.half_spread_bps / 1e4) * shares + cash
    shortfall = -side * (executed / arrival - 1.0) * 1e4
    fee = costs.maker_fee_bps if filled and not taken else costs.taker_fee_bps
    certainty = 0.0 if filled else -costs.unfilled_penalty_bps
    total = weights.price * shortfall - weights.fees * fee + weights.certainty * certainty - weights.risk * worst * 1e4
    return filled, total, side * (end / executed - 1.0) * 1e4 if filled else None


def from_frame(bars: "pd.DataFrame", place: int, window: int) -> list[Bar]:
    """The window's bars out of a symbol's frame."""
    return [dict(bar) for _, bar in bars.iloc[place + 1 : place + 1 + window].iterrows()]


def from_list(bars: list[Bar], place: int, window: int) -> list[Bar]:
    """The window's bars out of a list of records."""
    return bars[place + 1 : place + 1 + window]


def peer(bars: dict, later_of: Callable, effects: Effects, decisions: list[dict], what: Objectives) -> list[dict]:
    """Pairs in a plain loop; `bars` has those of each symbol, and `later_of` finds a window in them."""
    objective, pairs = what.objectives[OBJECTIVE], []
    window = objective.window_sessions
    for decision in decisions:
        side, *offsets = drawn(decision, what)
        close, atr = decision["close"], decision["atr_14"]
        later = later_of(bars[decision["symbol"]], decision["place"], window)
        if len(later) < window:
            continue
        limits = [round(round((close - side * offset * atr) / TICK_SIZE) * TICK_SIZE, 10) for offset in offsets]
        if abs(limits[1] / close - 1.0) > BAND_EDGE or side * (limits[0] - limits[1]) <= 0 or limits[1] <= 0:
            continue
        order = {"symbol": decision["symbol"], "side": side, "arrival": close}
        near, far = (reward({**order, "limit": limit}, later, effects, what.costs, objective.weights) for limit in limits)
        if abs(far[1] - near[1]) < what.near_tie_bps:
            continue
        chosen, rejected = (1, 0) if far[1] > near[1] else (0, 1)
        both = near, far
        pairs.append(
            {
                "symbol": decision["symbol"],
                "decision_at": decision["decision_at"],
                "side": "BUY" if side > 0 else "SELL",
                "chosen_limit": limits[chosen],
                "rejected_limit": limits[rejected],
                "chosen_filled": both[chosen][0],
                "rejected_filled": both[rejected][0],
                "chosen_reward": both[chosen][1],
                "rejected_reward": both[rejected][1],
                "chosen_markout_bps": both[chosen][2],
                "rejected_markout_bps": both[rejected][2],
                "margin_bps": abs(far[1] - near[1]),
            }
        )
    return pairs


def check(mine: pl.DataFrame, made: list[dict]) -> None:
    """Both made the same pairs, and paid them alike."""
    theirs = pl.DataFrame(made, schema_overrides={"decision_at": STAMP}, infer_schema_length=None)
    same = mine.select("symbol", "decision_at", "side").equals(theirs.select("symbol", "decision_at", "side"))
    assert same, "the two made other pairs"
    for column in theirs.columns[3:]:
        of = [frame[column].cast(pl.Float64).fill_null(math.inf).to_numpy() for frame in (mine, theirs)]
        there = np.isfinite(of[0])
        assert np.array_equal(there, np.isfinite(of[1])), f"{column} is null elsewhere"
        apart = float(np.abs(of[0][there] - of[1][there]).max())
        assert apart <= EQUAL, f"{column} differs by {apart}"


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of ours (least of several runs) and of the peer (one run), and their ratio."""
    sessions, what = calendar(SESSIONS), declared()
    bars, actions, points = market(QUICK_SYMBOLS if quick else SYMBOLS, sessions)
    found = ours(bars, actions, points, sessions, what)  # compiles where the cache has nothing yet
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        found = ours(bars, actions, points, sessions, what)
        taken.append(time.perf_counter() - started)
    some = sorted(points["symbol"].unique())[:: 1 if quick else EVERY]
    asked = points.filter(pl.col("symbol").is_in(some)).sort("symbol", "decision_at")
    decisions = asked.with_columns(
        place=pl.int_range(pl.len()).over("symbol"), microseconds=pl.col("decision_at").dt.epoch("us")
    ).to_dicts()
    known = {symbol: bars.filter(pl.col("symbol") == symbol).select("session", *PRICES) for symbol in some}
    mine = found.rows.filter(pl.col("symbol").is_in(some))
    effects, a_pair = effects_of(actions), {}
    for kind, later_of in (("lists", from_list), ("frames", from_frame)):
        held = {
            symbol: of.to_dicts() if kind == "lists" else of.to_pandas().assign(session=of["session"].to_list())
            for symbol, of in known.items()
        }
        # Frames take long enough that a tenth of the decisions tell; lists are walked for all that are asked.
        part = decisions if kind == "lists" else decisions[: len(decisions) // 10]
        started = time.perf_counter()
        made = peer(held, later_of, effects, part, what)
        a_pair[kind] = (time.perf_counter() - started) / len(part)
        check(mine.head(len(made)), made)
    seconds = a_pair["frames"] * points.height
    best, peak = min(taken), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{points.height:,} decisions, {found.counts}; ours {best / points.height * 1e6:.3f} µs a pair, peer "
        f"{a_pair['frames'] * 1e6:.1f}, the same over lists of dicts {a_pair['lists'] * 1e6:.1f} "
        f"({a_pair['lists'] * points.height / best:.0f} times ours), {peak:.0f} MiB at the peak",
        file=sys.stderr,
    )
    return best, seconds, seconds / best


if __name__ == "__main__":
    report("pairs", AIM, compare, __doc__)
