"""A hidden Markov model of the market with three Gaussian states, and its filtered probabilities.

Fitted by hmmlearn (EM, full covariances) from one declared start, so that the same rows give the same bits. The states that
EM finds have no names, and their order means nothing; they are named by their fitted moments (`named`), which makes them the
same states in every fold. At a decision only the forward pass counts: a smoothed probability has the future in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit

from tapehouse.fits import Fitted

RANGE, TREND, HIGH = "low_volatility_range", "trend", "high_volatility"
STATES = (RANGE, TREND, HIGH)
# The market's log return and the log of its realised volatility, both over 20 sessions. Over one session no state's drift
# stands out of its noise (|mean| / deviation below 0.25 in every state of every window tried), over 20 it does.
INPUTS = ("ret_20d", "log_vol_20d")
RETURN, VOLATILITY = 0, 1
FEWEST_ROWS = 100
ITERATIONS, TOLERANCE = 300, 1e-4  # of EM, and of the gain in log-likelihood at which it stops
SEEN_BEFORE = 1.0  # moves between any two states that are added to those of the rows: else a state may have no way out
STAYING = 0.94  # the start's probability to stay in a state: half of all stays last eleven sessions or more
KIND = "hmm"


@dataclass(frozen=True)
class States:
    """The fitted model, its states in the order of `STATES`, in the units of the inputs.

    Attributes:
        transition (3, 3): probability of column next given row now.
        means (3, 2), covariances (3, 2, 2): of the Gaussian of each state; columns as in `INPUTS`.
        log_likelihood: of the fitted rows, standardised; iterations: of EM; rows: that were fitted.
    """

    transition: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    log_likelihood: float
    iterations: int
    rows: int


def inputs(market: pl.DataFrame) -> pl.DataFrame:
    """The observations in rows of `features.price` of the benchmark: those with all inputs, in the order of decisions.

    A volatility of nothing has no logarithm; such a day is no observation.
    """
    whole = pl.col("ret_20d").is_not_null() & (pl.col("realised_vol_20d") > 0)
    log_vol = pl.Series("log_vol_20d", [], pl.Float64)
    rows = market.filter(whole).sort("decision_at")
    if rows.height:
        log_vol = pl.Series("log_vol_20d", np.log(rows["realised_vol_20d"].to_numpy()))
    return rows.select("decision_at", "known_at", "ret_20d").with_columns(log_vol)


def fit(observations: np.ndarray) -> States | None:
    """The model of `observations` (n, 2), oldest first, with named states; None where there are fewer than 100 rows.

    EM starts from the thirds of the rows by volatility. It climbs to the nearest optimum: from other starts it may find
    another one, from the same rows it finds the same bits, on any number of threads.
    """
    from hmmlearn.base import ConvergenceMonitor
    from hmmlearn.hmm import GaussianHMM
    from threadpoolctl import threadpool_limits

    class Steps(ConvergenceMonitor):
        """With moves seen before, EM climbs the posterior; the likelihood, which is reported, may fall a little by the end."""

        def report(self, log_prob: float) -> None:
            self.history.append(log_prob)
            self.iter += 1

        @property
        def converged(self) -> bool:
            gains = np.diff(self.history)
            return self.iter == self.n_iter or (gains.size > 0 and abs(gains[-1]) < self.tol)

    if observations.shape[0] < FEWEST_ROWS:
        return None
    observations = np.ascontiguousarray(observations, np.float64)  # the order in memory is the order of sums
    centre, scale = observations.mean(axis=0), observations.std(axis=0)
    rows = np.ascontiguousarray((observations - centre) / np.where(scale > 0, scale, 1.0))
    thirds = np.array_split(np.argsort(rows[:, VOLATILITY], kind="stable"), len(STATES))
    model = GaussianHMM(
        len(STATES),
        covariance_type="full",
        transmat_prior=1.0 + SEEN_BEFORE,
        n_iter=ITERATIONS,
        tol=TOLERANCE,
        init_params="",
        params="stmc",
    )
    model.monitor_ = Steps(TOLERANCE, ITERATIONS, verbose=False)
    model.startprob_ = np.full(3, 1 / 3)
    model.transmat_ = np.full((3, 3), (1 - STAYING) / 2) + np.eye(3) * (STAYING - (1 - STAYING) / 2)
    model.means_ = np.array([rows[third].mean(axis=0) for third in thirds])
    model.covars_ = np.array([np.cov(rows[third].T) + 1e-3 * np.eye(2) for third in thirds])
    with threadpool_limits(1):  # for matrices of two columns threads do nothing but wait: 40 times the time on busy cores
        model.fit(rows)
    return named(
        np.asarray(model.transmat_),
        np.asarray(model.means_) * scale + centre,
        np.asarray(model.covars_) * np.outer(scale, scale),
        float(model.monitor_.history[-1]),
        int(model.monitor_.iter),
        rows.shape[0],
    )


def fitted(market: pl.DataFrame) -> Fitted:
    """The model of the benchmark's rows of `features.price` in a training window, for `models.fits`; empty if they are few."""
    rows = inputs(market)
    states = fit(rows.select(INPUTS).to_numpy())
    return Fitted(KIND, to_rows(states) if states else {}, rows.height)


def named(
    transition: np.ndarray, means: np.ndarray, covariances: np.ndarray, log_likelihood: float, iterations: int, rows: int
) -> States:
    """The same model with its states in the order of `STATES`, whatever order they are given in.

    The state of the highest mean volatility is `high_volatility`. Of the two calmer ones, `trend` is the one whose mean return
    is larger against its deviation, up or down, and `low_volatility_range` the other.
    """
    covariances = (covariances + covariances.swapaxes(1, 2)) / 2  # EM's halves may differ in their last bit
    drift = np.abs(means[:, RETURN]) / np.sqrt(covariances[:, RETURN, RETURN])
    # Ties, which take equal states, are broken by the mean return.
    by_volatility = np.lexsort((means[:, RETURN], means[:, VOLATILITY]))
    calm = sorted(by_volatility[:2].tolist(), key=lambda state: (drift[state], means[state, RETURN]))
    order = np.array([*calm, by_volatility[2]])
    return States(transition[np.ix_(order, order)], means[order], covariances[order], log_likelihood, iterations, rows)


def to_rows(states: States) -> dict[str, float]:
    """Key to value, as `models.fits` holds the model."""
    values: dict[str, float] = {}
    for i, state in enumerate(STATES):
        values |= {f"mean.{state}.{name}": float(states.means[i, j]) for j, name in enumerate(INPUTS)}
        for j, one in enumerate(INPUTS):
            values |= {f"covariance.{state}.{one}.{INPUTS[k]}": float(states.covariances[i, j, k]) for k in range(j, 2)}
        values |= {f"transition.{state}.{other}": float(states.transition[i, j]) for j, other in enumerate(STATES)}
    return values | {"log_likelihood": states.log_likelihood, "iterations": float(states.iterations)}


def from_rows(values: Mapping[str, float], rows: int = 0) -> States:
    """The model that `to_rows` wrote down."""
    covariances = np.empty((3, 2, 2))
    for i, state in enumerate(STATES):
        for j, one in enumerate(INPUTS):
            for k in range(j, 2):
                covariances[i, j, k] = covariances[i, k, j] = values[f"covariance.{state}.{one}.{INPUTS[k]}"]
    return States(
        np.array([[values[f"transition.{one}.{other}"] for other in STATES] for one in STATES]),
        np.array([[values[f"mean.{state}.{name}"] for name in INPUTS] for state in STATES]),
        covariances,
        values["log_likelihood"],
        int(values["iterations"]),
        rows,
    )


def filtered(states: States, observations: np.ndarray) -> np.ndarray:
    """Probability of each state after each row, given that row and those before it, from equal odds before the first.

    Args:
        observations: (n, 2), oldest first, the first one at the anchor.

    Returns:
        (n, 3), columns as in `STATES`; rows add to one.
    """
    precision = np.linalg.inv(states.covariances)
    log_norm = 0.5 * np.log(np.linalg.det(states.covariances))
    return forward(np.ascontiguousarray(observations, np.float64), states.transition, states.means, precision, log_norm)


@njit(cache=True)
def forward(observations, transition, means, precision, log_norm):
    """The forward pass in a fixed order; see `filtered`. `precision` (3, 2, 2) inverts the covariances, `log_norm` (3,) is half
    the logarithm of their determinants."""
    n, k = observations.shape[0], means.shape[0]
    out = np.empty((n, k))
    now = np.full(k, 1.0 / k)
    weight = np.empty(k)
    for t in range(n):
        for i in range(k):
            a, b = observations[t, 0] - means[i, 0], observations[t, 1] - means[i, 1]
            square = a * a * precision[i, 0, 0] + 2.0 * a * b * precision[i, 0, 1] + b * b * precision[i, 1, 1]
            weight[i] = -0.5 * square - log_norm[i]
        highest = weight.max()
        total = 0.0
        for j in range(k):
            prior = 0.0
            for i in range(k):
                prior += now[i] * transition[i, j]
            # A density that underflows against the likeliest state's leaves the others their prior's order, never 0 / 0.
            out[t, j] = (now[j] if t == 0 else prior) * max(np.exp(weight[j] - highest), 1e-300)
            total += out[t, j]
        for j in range(k):
            out[t, j] /= total
            now[j] = out[t, j]
    return out
