"""The verdict on every subject, as a computed word: it beats the strongest baseline, loses to it, or nothing is proven.

BEATS takes all of: 30 trades, a paired Sharpe difference from the strongest baseline whose lower bound is above 0 at the level
that Holm's correction for all subjects leaves (S. Holm, A simple sequentially rejective multiple test procedure, 1979), and a
deflated Sharpe ratio of 0.95 (Bailey and López de Prado 2014). LOSES: the upper bound of the difference is below 0. Anything
else is INCONCLUSIVE. Returns are those of all blocks, joined; positions are flattened, at cost, where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import polars as pl

from tapehouse.bootstrap import DRAWS, FEWEST, block_length, p_value, quantiles, resample, sharpe_draws
from tapehouse.metrics import sharpe, sharpe_interval
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR, drawdowns
from tapehouse.statistics.overfitting import overfitting
from tapehouse.statistics.ratios import deflated_sharpe, effective_trials, minimum_track_record, probabilistic_sharpe
from tapehouse.trials import daily_sharpe

BEATS, LOSES, INCONCLUSIVE = WORDS = ("BEATS", "LOSES", "INCONCLUSIVE")
FEWEST_TRADES: Final = 30
LEAST_DEFLATED: Final = 0.95
ONE_SIDED: Final = 0.025  # of a 95 % interval
VERDICTS: Final = {
    "subject": pl.String,
    "kind": pl.String,
    "verdict": pl.String,
    "reason": pl.String,
    "scope": pl.String,
    "folds": pl.Int64,
    "sessions": pl.Int64,
    "first_session": pl.Date,
    "last_session": pl.Date,
    "trades": pl.Int64,
    "return": pl.Float64,
    "max_drawdown": pl.Float64,
    "sharpe": pl.Float64,
    "sharpe_low": pl.Float64,
    "sharpe_high": pl.Float64,
    "probabilistic_sharpe": pl.Float64,
    "deflated_sharpe": pl.Float64,
    "deflated_sharpe_effective": pl.Float64,
    "trials": pl.Int64,
    "effective_trials": pl.Float64,
    "track_record_sessions": pl.Float64,
    "overfitting_probability": pl.Float64,
    "baseline": pl.String,
    "baseline_sharpe": pl.Float64,
    "difference": pl.Float64,
    "difference_low": pl.Float64,
    "difference_high": pl.Float64,
    "p_value": pl.Float64,
    "p_holm": pl.Float64,
}


@dataclass(frozen=True)
class Curve:
    """Daily returns of a subject over all its blocks, the first session of each left out: nothing can be earned on it."""

    subject: str
    ret: np.ndarray
    sessions: tuple[date, ...]
    folds: int
    trades: int

    @property
    def sharpe(self) -> float | None:
        """Annualised; None without trades."""
        return sharpe(self.ret) if self.trades else None


@dataclass(frozen=True)
class Paired:
    """The difference of two Sharpe ratios over the sessions that both have; `p_value` one-sided, that it is not above 0."""

    baseline: str
    baseline_sharpe: float
    difference: float
    low: float | None
    high: float | None
    p_value: float


def curves(equity: pl.DataFrame, trades: Mapping[str, int]) -> dict[str, Curve]:
    """One curve a subject, by name.

    Args:
        equity: rows of `reports.backtest_equity`: `subject`, `fold`, `session`, `ret`. trades: closed trades of each subject.
    """
    rows = equity.sort("subject", "fold", "session").filter(pl.col("session") > pl.col("session").min().over("subject", "fold"))
    return {
        str(subject): Curve(
            str(subject), own["ret"].to_numpy(), tuple(own["session"]), own["fold"].n_unique(), trades.get(str(subject), 0)
        )
        for (subject,), own in rows.group_by("subject", maintain_order=True)
    }


def verdicts(
    found: Mapping[str, Curve],
    kinds: Mapping[str, str],
    baselines: Sequence[str],
    trials: pl.DataFrame,
    universe: int,
    prior: Mapping[str, int] | None = None,
) -> pl.DataFrame:
    """One row of `VERDICTS` a subject, best Sharpe ratio first.

    Args:
        found: of :func:`curves`. kinds: of each subject. baselines: the subjects that others are measured against.
        trials: rows of `reports.trials`. universe: how many instruments are traded. prior: see :func:`number_of_trials`.

    Raises:
        ValueError: no baseline among the subjects.
    """
    there = [found[name] for name in baselines if name in found]
    if not there:
        raise ValueError(f"no baseline was traded: make one of {list(baselines)}; a verdict without one says nothing")
    draws = draws_for(len(found))
    pairs = {name: strongest(curve, there, draws) for name, curve in found.items()}
    holm = corrected({name: pair.p_value for name, pair in pairs.items() if pair})
    tried, ratios = number_of_trials(trials, prior), trial_ratios(trials)
    rows = []
    for name, curve in found.items():
        pair = pairs[name]
        alike = [other for other in found.values() if set(curve.sessions) <= set(other.sessions)]
        together = _matrix(alike, curve.sessions)
        effective = effective_trials(together, tried)
        over = overfitting(together)
        traded = curve.trades > 0
        deflated = deflated_sharpe(curve.ret, ratios, tried) if traded else None
        word, reason = judged(curve, pair, holm.get(name), deflated)
        rows.append(
            {
                "subject": name,
                "kind": kinds.get(name),
                "verdict": word,
                "reason": reason,
                "scope": scope(curve.folds, universe),
                "folds": curve.folds,
                "sessions": len(curve.ret),
                "first_session": curve.sessions[0] if curve.sessions else None,
                "last_session": curve.sessions[-1] if curve.sessions else None,
                "trades": curve.trades,
                "return": float(np.prod(1.0 + curve.ret) - 1.0),
                "max_drawdown": drawdowns(curve.ret).deepest,
                "sharpe": curve.sharpe,
                **dict(zip(("sharpe_low", "sharpe_high"), sharpe_interval(curve.ret) if traded else (None, None), strict=True)),
                "probabilistic_sharpe": probabilistic_sharpe(curve.ret) if traded else None,
                "deflated_sharpe": deflated,
                "deflated_sharpe_effective": deflated_sharpe(curve.ret, ratios, effective) if traded else None,
                "trials": tried,
                "effective_trials": effective,
                "track_record_sessions": minimum_track_record(curve.ret) if traded else None,
                "overfitting_probability": over.probability if over else None,
                "baseline": pair.baseline if pair else None,
                "baseline_sharpe": pair.baseline_sharpe if pair else None,
                "difference": pair.difference if pair else None,
                "difference_low": pair.low if pair else None,
                "difference_high": pair.high if pair else None,
                "p_value": pair.p_value if pair else None,
                "p_holm": holm.get(name),
            }
        )
    return pl.DataFrame(rows, VERDICTS).sort(pl.col("sharpe").fill_null(0.0), "subject", descending=[True, False])


def judged(curve: Curve, pair: Paired | None, p_holm: float | None, deflated: float | None) -> tuple[str, str]:
    """The word, and why it is not a better one; of who never traded there is no ratio to judge."""
    if not curve.trades:
        return INCONCLUSIVE, "no trades"
    if pair is None:
        return INCONCLUSIVE, "there is no other baseline over these sessions"
    if pair.low is None or pair.high is None:
        return INCONCLUSIVE, f"fewer than {FEWEST} sessions"
    if pair.high < 0:
        return LOSES, f"the difference from {pair.baseline} is below 0 with 95 % confidence"
    lacking = []
    if curve.trades < FEWEST_TRADES:
        lacking.append(f"{curve.trades} trades, of {FEWEST_TRADES}")
    if p_holm is None or p_holm > ONE_SIDED:
        what = "the interval of the difference" if pair.low <= 0 else "the difference, corrected for all subjects,"
        lacking.append(f"{what} from {pair.baseline} includes 0")
    if deflated is None or deflated < LEAST_DEFLATED:
        has = "no deflated Sharpe ratio" if deflated is None else f"deflated Sharpe ratio {deflated:.2f}"
        lacking.append(f"{has}, of {LEAST_DEFLATED}")
    return (INCONCLUSIVE, "; ".join(lacking)) if lacking else (BEATS, f"ahead of {pair.baseline} in every respect asked for")


def draws_for(subjects: int) -> int:
    """Resamples, so that the smallest share times the number of subjects is a tenth of the level that is asked for.

    The p-value of few blocks is larger than the share: of fifty subjects, one with twelve blocks of sessions (a single test
    block) is never far enough ahead, one with thirty can be.
    """
    return max(DRAWS, int(10 * subjects / ONE_SIDED))


def strongest(curve: Curve, baselines: Sequence[Curve], draws: int = DRAWS) -> Paired | None:
    """`curve` beside the baseline with the highest Sharpe ratio over its own sessions; None where no other covers them."""
    others = [other for other in baselines if other.subject != curve.subject and set(curve.sessions) <= set(other.sessions)]
    if not others:
        return None
    over = {other.subject: _matrix([other], curve.sessions)[:, 0] for other in others}
    scores = {name: sharpe(ret) or 0.0 for name, ret in over.items()}
    name = max(scores, key=lambda key: (scores[key], key))
    return paired(curve.ret, over[name], name, draws)


def paired(ours: np.ndarray, theirs: np.ndarray, baseline: str, draws: int = DRAWS) -> Paired:
    """The difference of two Sharpe ratios, over blocks of sessions resampled in pairs; a curve that never moves has ratio 0."""
    mine, their = sharpe(ours) or 0.0, sharpe(theirs) or 0.0
    if len(ours) < FEWEST:
        return Paired(baseline, their, mine - their, None, None, 1.0)
    drawn = resample(len(ours), max(block_length(ours), block_length(theirs)), draws)
    gaps = (sharpe_draws(ours, drawn) - sharpe_draws(theirs, drawn)) * np.sqrt(PERIODS_A_YEAR)
    low, high = quantiles(gaps, drawn)
    return Paired(baseline, their, mine - their, low, high, p_value(gaps, drawn))


def corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p-values: the smallest times how many there are, the next times one less, never falling, at most 1."""
    ordered, least = sorted(p_values.items(), key=lambda item: (item[1], item[0])), 0.0
    found = {}
    for place, (name, p) in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - place) * p))
        found[name] = least
    return found


def number_of_trials(trials: pl.DataFrame, prior: Mapping[str, int] | None = None) -> int:
    """Settings that were tried, with those from before trials were logged: each of a subject once, whatever its folds.

    One that earned other returns when it was tried again, on other data or by other code, counts again. `prior` is what the
    declarations say of those today; a subject that is not declared any more keeps what was logged of it.
    """
    settings = sum(max(1, len(ret)) for ret in _generations(trials))
    logged = dict(trials.group_by("subject").agg(pl.col("prior_trials").max()).iter_rows())
    return settings + sum((logged | dict(prior or {})).values())


def trial_ratios(trials: pl.DataFrame) -> list[float]:
    """Sharpe ratio per period of each setting over all its folds, of each time it was tried; what never traded has none."""
    found = (daily_sharpe(ret) for own in _generations(trials) for ret in own)
    return [ratio for ratio in found if ratio is not None]


def _generations(trials: pl.DataFrame) -> Iterator[list[np.ndarray]]:
    """Of each setting the returns over all its folds, as often as there are different ones; none where it never got so far.

    A log does not say which returns of one fold were made with which of another: the first of each are joined, then the
    second, and a fold that has fewer, since its returns did not change, gives its last again.
    """
    rows = trials.sort("subject", "kind", "params", "fold", "trial")
    for _, own in rows.group_by("subject", "kind", "params", maintain_order=True):
        traded = own.filter(pl.col("returns").list.len() > 0).group_by("fold", maintain_order=True).agg("returns")
        folds = [[np.asarray(ret, float) for ret in fold] for fold in traded["returns"].to_list()]
        times = max(map(len, folds), default=0)
        yield [np.concatenate([fold[min(time, len(fold) - 1)] for fold in folds]) for time in range(times)]


def scope(folds: int, universe: int) -> str:
    """What the figures are of, so that nobody takes them for more."""
    blocks = "1 test block" if folds == 1 else f"{folds} test blocks"
    return f"{blocks}, one universe of {universe} instruments"


def _matrix(found: Sequence[Curve], sessions: Sequence[date]) -> np.ndarray:
    """Returns (sessions, curves) of curves that have all the sessions."""
    columns = []
    for curve in found:
        at = {session: place for place, session in enumerate(curve.sessions)}
        columns.append(curve.ret[[at[session] for session in sessions]])
    return np.stack(columns, axis=1) if columns else np.zeros((len(sessions), 0))
