"""Answers as classes: what was said against which barrier was reached, and the probabilities that were given to it."""

from __future__ import annotations

import numpy as np

from tapehouse.evaluations.answers import BINS, bins, sureness
from tapehouse.evaluations.core import Derived, Part, Ratio, Term
from tapehouse.evaluations.rows import Rows
from tapehouse.predictions import ACTIONS, CHANCES

SMALLEST_PROBABILITY = 1e-15  # keeps the log loss finite
NAMES = tuple(action.lower() for action in ACTIONS)
CELLS = tuple(f"{truth}_as_{said}" for truth in NAMES for said in NAMES)  # what happened, as what was said
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
    "log_loss": "Mean negative log probability of the label's class [nats]; ln 3 = 1.0986 is no knowledge.",
    "log_loss_base_rate": "Log loss of the block's own base rates, which no forecaster could have known.",
    "brier": "Mean squared distance of the three probabilities from what happened, 0 to 2; 2/3 is no knowledge.",
    "calibration_error": "Mean distance, by answers, of the stated probability from the share that came true, in ten bins; "
    "chance makes it larger than 0, most with few answers.",
    "said": "Mean probability given to the answered action; in slice `confidence` of a bin.",
    "happened": "Share of those answers that the label bears out.",
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
    known, right = _labelled(rows)
    cells = [known & (rows["truth"] == t) & (rows["action"] == s) for t in range(3) for s in range(3)]
    return [
        Term("right", np.where(known, right, np.nan)),
        *(Term(cell, np.where(known, at, np.nan)) for cell, at in zip(CELLS, cells, strict=True)),
        *(Term(f"said_{name}", np.where(known & (rows["action"] == i), right, np.nan)) for i, name in enumerate(NAMES)),
        *(Term(f"was_{name}", np.where(known & (rows["truth"] == i), right, np.nan)) for i, name in enumerate(NAMES)),
    ]


def _over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Their ratio, and NaN over zero."""
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _by_class(*cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts of what was right, was said and happened of each class, (3, …), from the nine cells."""
    confusion = np.asarray(cells).reshape(3, 3, *np.shape(cells[0]))
    return np.stack([confusion[i, i] for i in range(3)]), confusion.sum(axis=0), confusion.sum(axis=1)


def balanced_accuracy(*cells: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that occur, from the nine counts (truth, said)."""
    right, _, happened = _by_class(*cells)
    recall, occurs = _over(right, happened), happened > 0
    return _over(np.where(occurs, recall, 0.0).sum(axis=0), occurs.sum(axis=0))


def matthews(*cells: np.ndarray) -> np.ndarray:
    """Multi-class Matthews correlation of nine counts (truth, said); NaN where either never varies.

    J. Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).
    """
    right, said, happened = _by_class(*cells)
    total = said.sum(axis=0)
    spread = (total**2 - (said**2).sum(axis=0)) * (total**2 - (happened**2).sum(axis=0))
    return _over(right.sum(axis=0) * total - (happened * said).sum(axis=0), np.sqrt(np.maximum(spread, 0.0)))


def base_rate_loss(*cells: np.ndarray) -> np.ndarray:
    """Entropy of what happened [nats]: the log loss of the rows' own base rates."""
    happened = _by_class(*cells)[2]
    rates = _over(happened, np.broadcast_to(happened.sum(axis=0), np.shape(happened)))
    return -(rates * np.log(np.where(rates > 0, rates, 1.0))).sum(axis=0)


def _macro(of: int):
    """Mean over classes that occur or were said of precision (0), recall (1) or F1 (2), 0 where it has no denominator.

    As scikit-learn with zero_division 0.
    """

    def mean(*cells: np.ndarray) -> np.ndarray:
        right, said, happened = _by_class(*cells)
        score = _over(right * (2.0 if of == 2 else 1.0), (said, happened, said + happened)[of] + 0.0)
        there = said + happened > 0
        return _over(np.where(there, np.nan_to_num(score), 0.0).sum(axis=0), there.sum(axis=0))

    return mean


def _f1(at: int):
    def score(*cells: np.ndarray) -> np.ndarray:
        right, said, happened = _by_class(*cells)
        return _over(2.0 * right[at], said[at] + happened[at])

    return score


def _rate(at: int):
    def rate(*cells: np.ndarray) -> np.ndarray:
        happened = _by_class(*cells)[2]
        return _over(happened[at], happened.sum(axis=0))

    return rate


CONFUSION = Part(
    _confusion,
    (
        Derived("n_labelled", CELLS, lambda *cells: np.sum(cells, axis=0), None, interval=False),
        *(Derived(f"base_rate_{name}", CELLS, _rate(i), None) for i, name in enumerate(NAMES)),
        Ratio("accuracy", "right"),
        Derived("balanced_accuracy", CELLS, balanced_accuracy),
        *(Ratio(f"precision_{name}", f"said_{name}") for name in NAMES),
        *(Ratio(f"recall_{name}", f"was_{name}") for name in NAMES),
        *(Derived(f"f1_{name}", CELLS, _f1(i)) for i, name in enumerate(NAMES)),
        *(Derived(f"{name}_macro", CELLS, _macro(i)) for i, name in enumerate(("precision", "recall", "f1"))),
        *(Derived(f"confusion_{cell}", (cell,), lambda count: count, interval=False) for cell in CELLS),
        Derived("mcc", CELLS, matthews),
        Derived("log_loss_base_rate", CELLS, base_rate_loss, None),
    ),
)


def _chances(rows: Rows) -> list[Term]:
    given = np.column_stack([rows[name] for name in CHANCES])
    known = _labelled(rows)[0] & ~np.isnan(given).any(axis=1)
    loss, squares = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    truth = rows["truth"][known].astype(int)
    loss[known] = -np.log(np.maximum(given[known, truth], SMALLEST_PROBABILITY))
    squares[known] = ((given[known] - np.eye(3)[truth]) ** 2).sum(axis=1)
    return [Term("loss", loss), Term("squares", squares)]


PROBABILITIES = Part(_chances, (Ratio("log_loss", "loss"), Ratio("brier", "squares")))


def _surely(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the answered action where it is known whether that was right, and whether it was; both (rows,)."""
    known, right = _labelled(rows)
    sure = np.where(known, sureness(rows), np.nan)
    return sure, np.where(np.isnan(sure), np.nan, right)


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


CALIBRATION = Part(
    _reliable,
    (Derived("calibration_error", ("judged", *(f"off_{i}" for i in range(BINS))), calibration_error),),
)
RELIABILITY = Part(
    lambda rows: [Term(n, v) for n, v in zip(("sure", "came_true"), _surely(rows), strict=True)],
    (Ratio("said", "sure", chance=None), Ratio("happened", "came_true")),
    frozenset({"all", "confidence"}),
)
CLASSES = (COUNTS, CONFUSION, PROBABILITIES, CALIBRATION, RELIABILITY)
