"""Answers as classes: what was said against which barrier was reached, and the probabilities that were given to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tapehouse.bootstrap import BLOCK_SESSIONS, FEWEST, resample
from tapehouse.evaluations.answers import BINS, bins, given, sureness, taken_return
from tapehouse.evaluations.core import ALL, Derived, Part, Ratio, Stated, Term
from tapehouse.evaluations.drawing import draw_sums, grouped_sums
from tapehouse.evaluations.rows import Rows
from tapehouse.predictions import ACTIONS, CHANCES

SMALLEST_PROBABILITY = 1e-15  # keeps the log loss finite
NAMES = tuple(action.lower() for action in ACTIONS)
CELLS = tuple(f"{truth}_as_{said}" for truth in NAMES for said in NAMES)  # what happened, as what was said
HITS = tuple(f"{name}_as_{name}" for name in NAMES)
WHOLES = frozenset({"all", "regime", "symbol", "objective"})  # divisions that do not depend on the answer

MEANING = {
    "n": "Predictions.",
    "coverage": "Share of the block's decision points that have a prediction.",
    "unparseable": "Share of answers that did not parse and so act as HOLD.",
    "share_sell": "Share of SELL among the predictions.",
    "share_hold": "Share of HOLD.",
    "share_buy": "Share of BUY.",
    "share_limit": "Share of BUY and SELL with a limit price.",
    "n_labelled": "Predictions whose decision has an unambiguous, settled label.",
    "base_rate_sell": "Share of those whose lower barrier was reached first.",
    "base_rate_hold": "Share with neither barrier reached.",
    "base_rate_buy": "Share whose upper barrier was reached first.",
    "accuracy": "Share of labelled predictions whose action is the label's.",
    "balanced_accuracy": "Mean over the classes that occur of the share that was recognised; 1/3 is chance for three.",
    **{f"precision_{n}": f"Share of {n.upper()} answers that the label bears out." for n in NAMES},
    **{f"recall_{n}": f"Share of {n.upper()} labels that were answered so." for n in NAMES},
    **{f"f1_{n}": f"Harmonic mean of precision and recall of {n.upper()}; 0 where never said." for n in NAMES},
    "precision_macro": "Mean precision of the classes that occur or were said; one that was never said counts 0.",
    "recall_macro": "Mean recall of the same classes; one that never occurs counts 0.",
    "f1_macro": "Mean F1 of the same classes.",
    **{f"confusion_{cell}": "Labelled predictions: which class happened, as which was said." for cell in CELLS},
    "mcc": "Matthews correlation over three classes (Gorodkin 2004): 0 is chance; null where one side is constant.",
    "log_loss": "Mean negative log probability of the label's class [nats]; ln 3 = 1.0986 is no knowledge. An answer that did "
    "not parse counts with three equal probabilities if it carries none, here and in all figures of probabilities.",
    "log_loss_base_rate": "Log loss of the block's own base rates, which no forecaster could have known.",
    "brier": "Mean squared distance of the three probabilities from what happened, 0 to 2; 2/3 is no knowledge.",
    "calibration_error": "Mean distance, by answers, of the stated probability from the share that came true, in ten bins; "
    "chance makes it larger than 0, most with few answers: see calibration_error_by_chance.",
    "calibration_error_by_chance": "Mean calibration error of resampled blocks once every bin is moved to be calibrated: what "
    "is left to a forecaster who is calibrated, with outcomes that hang together as these do.",
    "said": "Mean probability given to the answered action, or confidence stated for a BUY or SELL; by bins in `confidence`.",
    "happened": "Share of those answers that the label bears out; of stated ones, whose direction earned.",
}


def _counts(rows: Rows) -> list[Term]:
    said, action = rows["said"] == 1, rows["action"]
    taken = said & (action != 1)
    return [
        Term("said", np.where(said, 1.0, np.nan)),
        Term("covered", np.where(rows["asked"] == 1, said, np.nan)),
        Term("not_parsed", np.where(said, rows["parsed"] != 1, np.nan)),
        *(Term(f"says_{name}", np.where(said, action == i, np.nan)) for i, name in enumerate(NAMES)),
        Term("limited", np.where(taken, ~np.isnan(rows["limit"]), np.nan)),
    ]


COUNTS = Part(
    _counts,
    (
        Derived("n", ("said",), lambda said: said, None, interval=False),
        Ratio("coverage", "covered", chance=None),
        Ratio("unparseable", "not_parsed", chance=None),
        *(Ratio(f"share_{name}", f"says_{name}", chance=None) for name in NAMES),
        Ratio("share_limit", "limited", chance=None),
    ),
    WHOLES,
)


def _labelled(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have an answer and a label, and which of those agree; both (rows,) of booleans."""
    known = (rows["said"] == 1) & ~np.isnan(rows["truth"])
    return known, known & (rows["truth"] == rows["action"])


def _confusion(rows: Rows) -> list[Term]:
    known, _ = _labelled(rows)
    was, said = ([known & (rows[name] == i) for i in range(3)] for name in ("truth", "action"))
    cells = {cell: was[i // 3] & said[i % 3] for i, cell in enumerate(CELLS)}
    return [
        Term("labelled", np.where(known, 1.0, np.nan)),
        *(Term(cell, np.where(known, at, np.nan)) for cell, at in cells.items()),
        *(Term(f"said_{name}", np.where(at, 1.0, np.nan)) for name, at in zip(NAMES, said, strict=True)),
        *(Term(f"was_{name}", np.where(at, 1.0, np.nan)) for name, at in zip(NAMES, was, strict=True)),
        Term("right", np.where(known, cells[HITS[0]] | cells[HITS[1]] | cells[HITS[2]], np.nan)),
    ]


def _over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Their ratio, and NaN over zero."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _mean(scores: list[np.ndarray], there: list[np.ndarray]) -> np.ndarray:
    """Mean over the classes that are there; a score that is not defined counts 0."""
    total = sum(np.where(at, np.nan_to_num(score), 0.0) for score, at in zip(scores, there, strict=True))
    return _over(total, sum(at.astype(float) for at in there))


def balanced_accuracy(*counts: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that occur, from what was recognised and what happened of each: 2 x 3 counts."""
    hits, was = counts[:3], counts[3:]
    return _mean([_over(h, w) for h, w in zip(hits, was, strict=True)], [w > 0 for w in was])


def matthews(*counts: np.ndarray) -> np.ndarray:
    """Multi-class Matthews correlation; NaN where what was said or what happened never varies.

    J. Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).

    Args:
        counts: of each class what was recognised, what was said, what happened: 3 x 3 arrays.
    """
    hits, said, was = counts[:3], counts[3:6], counts[6:]
    total = sum(was)
    spread = (total**2 - sum(s**2 for s in said)) * (total**2 - sum(w**2 for w in was))
    both = sum(s * w for s, w in zip(said, was, strict=True))
    return _over(sum(hits) * total - both, np.sqrt(np.maximum(spread, 0.0)))


def base_rate_loss(*was: np.ndarray) -> np.ndarray:
    """Entropy of what happened [nats]: the log loss of the rows' own base rates."""
    total = sum(was)
    rates = [_over(w, total) for w in was]
    return -sum(rate * np.log(np.where(rate > 0, rate, 1.0)) for rate in rates)


def _macro(of: int) -> Callable[..., np.ndarray]:
    """Mean over classes that occur or were said of precision (0), recall (1) or F1 (2), as scikit-learn, zero_division 0."""

    def mean(*counts: np.ndarray) -> np.ndarray:
        classes = list(zip(counts[:3], counts[3:6], counts[6:], strict=True))
        scores = [(_over(hit, said), _over(hit, was), f1(hit, said, was))[of] for hit, said, was in classes]
        return _mean(scores, [said + was > 0 for _, said, was in classes])

    return mean


def f1(hit: np.ndarray, said: np.ndarray, was: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall from what was recognised, said and happened of a class."""
    return _over(2.0 * hit, said + was)


SAID, WAS = (tuple(f"{what}_{name}" for name in NAMES) for what in ("said", "was"))
CONFUSION = Part(
    _confusion,
    (
        Derived("n_labelled", ("labelled",), lambda labelled: labelled, None, interval=False),
        *(Ratio(f"base_rate_{name}", f"was_{name}", "labelled", None) for name in NAMES),
        Ratio("accuracy", "right"),
        Derived("balanced_accuracy", (*HITS, *WAS), balanced_accuracy),
        *(Ratio(f"precision_{name}", hit, f"said_{name}") for name, hit in zip(NAMES, HITS, strict=True)),
        *(Ratio(f"recall_{name}", hit, f"was_{name}") for name, hit in zip(NAMES, HITS, strict=True)),
        *(Derived(f"f1_{name}", (hit, f"said_{name}", f"was_{name}"), f1) for name, hit in zip(NAMES, HITS, strict=True)),
        *(Derived(f"{name}_macro", (*HITS, *SAID, *WAS), _macro(i)) for i, name in enumerate(("precision", "recall", "f1"))),
        *(Derived(f"confusion_{cell}", (cell,), lambda count: count, interval=False) for cell in CELLS),
        Derived("mcc", (*HITS, *SAID, *WAS), matthews),
        Derived("log_loss_base_rate", ("labelled", *WAS), lambda _, *was: base_rate_loss(*was), None),
    ),
)


def _chances(rows: Rows) -> list[Term]:
    chances = np.column_stack([rows[name] for name in CHANCES])
    known = _labelled(rows)[0] & ~np.isnan(chances).any(axis=1)
    loss, squares = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    truth = rows["truth"][known].astype(int)
    loss[known] = -np.log(np.maximum(chances[known, truth], SMALLEST_PROBABILITY))
    squares[known] = ((chances[known] - np.eye(3)[truth]) ** 2).sum(axis=1)
    return [Term("loss", loss), Term("squares", squares)]


PROBABILITIES = Part(_chances, (Ratio("log_loss", "loss"), Ratio("brier", "squares")))


def _surely(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """How sure an answer was, where it is known whether that came true, and whether it did; both (rows,).

    A probability of the answered action comes true with its label, a stated confidence where the taken direction earns.
    """
    known, right = _labelled(rows)
    ret = taken_return(rows)
    came = np.where(np.isnan(given(rows)), np.where(np.isnan(ret), np.nan, ret > 0), np.where(known, right, np.nan))
    sure = np.where(np.isnan(came), np.nan, sureness(rows))
    return sure, np.where(np.isnan(sure), np.nan, came)


def _reliable(rows: Rows) -> list[Term]:
    sure, right = _surely(rows)
    place = bins(sure)
    off = [Term(f"off_{i}", np.where(place < 0, np.nan, np.where(place == i, sure - right, 0.0))) for i in range(BINS)]
    return [Term("sure", sure), Term("came_true", right), Term("judged", np.where(np.isnan(sure), np.nan, 1.0)), *off]


def calibration_error(judged: np.ndarray, *off: np.ndarray) -> np.ndarray:
    """Mean absolute distance of stated and realised share over bins, weighted by answers.

    Naeini, Cooper, Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning (2015), with the probability of
    the answered action.

    Args:
        judged: answers. off: of each bin, the sum of stated probabilities less the number that came true.
    """
    return _over(np.abs(np.asarray(off)).sum(axis=0), judged)


def error_by_chance(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean calibration error of draws of blocks, were every bin calibrated, and the answers behind it; (1,) each, of all rows.

    Outcomes permuted would answer another question: they say what the same probabilities score of decisions that they were
    not given for, and where these differ little that is as well calibrated. So what an answer is off, less the mean of its
    bin, is drawn in blocks of sessions, widened by the root of n / (n - 1) of n blocks, which vary less than what they sample.
    It is still too small by a tenth to a quarter where outcomes overlap, since the bins' means took some of it away.
    """
    draws, judged = draws_by_chance(rows)
    return np.array([draws.mean() if judged >= FEWEST else np.nan]), np.array([float(judged)])


def draws_by_chance(rows: Rows) -> tuple[np.ndarray, int]:
    """The calibration errors that `error_by_chance` is the mean of, (draws,), and the number of answers judged."""
    sure, came = _surely(rows)
    at = np.flatnonzero(~np.isnan(sure))
    place = bins(sure[at])
    off = sure[at] - came[at]
    counts = np.bincount(place, minlength=BINS)
    rest = off - (np.bincount(place, off, BINS) / np.maximum(counts, 1))[place]
    terms = np.zeros((at.size, BINS + 1))
    terms[np.arange(at.size), place] = rest
    terms[:, BINS] = 1.0
    drawn = resample(rows.sessions, min(BLOCK_SESSIONS, max(rows.sessions // 3, 1)))
    *drawn_off, answers = draw_sums(grouped_sums(terms, rows.dates[at], rows.sessions)[0], drawn)
    blocks = max(rows.sessions / drawn.block, 2.0)
    return calibration_error(answers, *drawn_off) * np.sqrt(blocks / (blocks - 1)), at.size


CALIBRATION = Part(
    _reliable,
    (Derived("calibration_error", ("judged", *(f"off_{i}" for i in range(BINS))), calibration_error, chance=None),),
)
BY_CHANCE = Part(lambda rows: [], (Stated("calibration_error_by_chance", error_by_chance),), frozenset({ALL}))
RELIABILITY = Part(
    lambda rows: [Term(n, v) for n, v in zip(("sure", "came_true"), _surely(rows), strict=True)],
    (Ratio("said", "sure", chance=None), Ratio("happened", "came_true")),
    frozenset({"all", "confidence"}),
)
CLASSES = (COUNTS, CONFUSION, PROBABILITIES, CALIBRATION, BY_CHANCE, RELIABILITY)
