"""Vetoes by what is known of the market at a decision: the VIX, a near support or resistance, the hour, what is scheduled.

Those by the account's own past are in the account (`tapehouse.backtest.guards`). A veto keeps entries out and no exit in. It
holds while its condition does, but never longer than its window in a row: then it lets entries go for its cool-down, so that
none locks for ever. It judges where at least its least sample of the window's values were known; where its input is missing
it holds nothing back, and says so.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tapehouse.calendars import all_sessions, exchange
from tapehouse.strategies.gates import ACTIVE, NOT_APPLICABLE, UNAVAILABLE, Judgement
from tapehouse.strategies.sections import DistanceVeto, EventsVeto, HoursVeto, Paced, VetoesSection, VixVeto

VIX, SUPPORT, RESISTANCE, HOURS, EVENTS = VETOES = ("vix", "support", "resistance", "hours", "events")
NUMBER: Final = {name: number for number, name in enumerate(VETOES)}  # as in `blocked_long` and `blocked_short`
LONGS_FREE, SHORTS_FREE = {SUPPORT}, {RESISTANCE}
NOTHING: Final = -1


@dataclass(frozen=True)
class Condition:
    """Of each row: whether the veto's condition holds, and whether its input was known."""

    holds: np.ndarray
    known: np.ndarray
    applies: bool = True


def judge_market(section: VetoesSection, points: pl.DataFrame, events: pl.DataFrame | None, calendar: str) -> list[Judgement]:
    """One judgement of the rows of `points` for each veto that is declared, in the order of `VETOES`.

    Args:
        points: rows of features.decision_points sorted by `KEYS`, from a window before the first decision that counts.
        events: rows of raw.calendar_events around them, for the veto by events. calendar: name of the exchange's.
    """
    found = []
    for name in VETOES:
        veto = getattr(section, name)
        if veto is None:
            continue
        condition = _condition(name, veto, points, events, calendar)
        if not condition.applies:
            none = np.zeros(points.height, bool)
            found.append(Judgement(name, "veto", none, none, NOT_APPLICABLE))
            continue
        blocks, judged = np.zeros(points.height, bool), np.zeros(points.height, bool)
        symbols = points["symbol"].to_numpy()
        for symbol in points["symbol"].unique(maintain_order=True):
            own = symbols == symbol
            blocks[own], judged[own] = paced(condition.holds[own], condition.known[own], veto)
        found.append(Judgement(name, "veto", blocks, ~judged, ACTIVE if judged.any() else UNAVAILABLE))
    return found


def paced(holds: np.ndarray, known: np.ndarray, veto: Paced) -> tuple[np.ndarray, np.ndarray]:
    """Where a veto holds entries back, and where it could judge; (sessions,) of one symbol in order.

    Args:
        holds: whether the condition does. known: whether its input was known.
    """
    seen = np.cumsum(np.concatenate([[0], known]))
    first = np.maximum(np.arange(len(known)) - veto.window + 1, 0)
    judged = known & (seen[1:] - seen[first] >= veto.least)
    blocks = np.zeros(len(holds), bool)
    run = release = 0
    for t in range(len(holds)):
        if release:
            release -= 1
        elif judged[t] and holds[t]:
            blocks[t] = True
            run += 1
            if run == veto.window:
                run, release = 0, veto.cool_down
            continue
        run = 0
    return blocks, judged


def blocked(judgements: list[Judgement], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """For longs and for shorts the number of the first veto that holds at each of `rows` rows, -1 for none."""
    longs, shorts = np.full(rows, NOTHING), np.full(rows, NOTHING)
    for judgement in reversed(judgements):
        number = NUMBER[judgement.name]
        if judgement.name not in LONGS_FREE:
            longs[judgement.blocks] = number
        if judgement.name not in SHORTS_FREE:
            shorts[judgement.blocks] = number
    return longs, shorts


def _condition(name: str, veto: Paced, points: pl.DataFrame, events: pl.DataFrame | None, calendar: str) -> Condition:
    match veto:
        case VixVeto():
            return Condition((points["vix"] > veto.limit).fill_null(False).to_numpy(), points["vix"].is_not_null().to_numpy())
        case DistanceVeto():
            column = f"{name}_distance_20d"
            return Condition(_near(veto, points, column), points[column].is_not_null().to_numpy())
        case HoursVeto():
            return _out_of_hours(veto, points, calendar)
        case EventsVeto():
            return _before_events(veto, points, events, calendar)
    raise AssertionError(name)


def _near(veto: DistanceVeto, points: pl.DataFrame, column: str) -> np.ndarray:
    """Whether the close lies nearer to the level than the veto allows."""
    distance = points[column].abs()
    near = distance < veto.limit if veto.limit is not None else pl.repeat(False, points.height, eager=True)
    if veto.limit_atr is not None:
        near = near | (distance < veto.limit_atr * points["atr_14"] / points["close"])
    return near.fill_null(False).to_numpy()


def _out_of_hours(veto: HoursVeto, points: pl.DataFrame, calendar: str) -> Condition:
    """Bars of a session end with it: only those within a day have an hour to speak of."""
    within = (points["interval"] != "1d").to_numpy()
    local = points["decision_at"].dt.convert_time_zone(str(exchange(calendar).tz)).dt.strftime("%H:%M")
    outside = ((local < veto.first) | (local > veto.last)).to_numpy()
    return Condition(outside & within, within, applies=bool(within.any()))


def _before_events(veto: EventsVeto, points: pl.DataFrame, events: pl.DataFrame | None, calendar: str) -> Condition:
    """Whether something scheduled, as known at the decision, comes before the close of the next sessions."""
    assert events is not None
    wanted = events.filter(pl.col("scheduled") & pl.col("kind").is_in(veto.kinds))
    if veto.names:
        wanted = wanted.filter(pl.col("name").is_in(veto.names))
    listed = wanted.select("name", "event_at", "known_at").sort("event_at").rows()
    closed = events.filter(kind="closure").select("name", "event_at", "known_at").rows()
    closes = all_sessions(calendar)["close_at"].to_list()
    comes = {}
    for at in points["decision_at"].unique(maintain_order=True):
        following = bisect_right(closes, at)  # a decision may be taken at the very close of its session
        until = closes[min(following + veto.sessions - 1, len(closes) - 1)]
        gone = {(name, when) for name, when, known in closed if known <= at}
        comes[at] = any(at < when <= until and known <= at and (name, when) not in gone for name, when, known in listed)
    holds = np.array([comes[at] for at in points["decision_at"]], bool)
    return Condition(holds, np.full(points.height, bool(listed)))
