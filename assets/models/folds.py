"""One row per (fold): a walk-forward test block of the exchange calendar and the window before it that may train for it.

A fold is named by its first test session. It follows from the calendar and `models_registry/folds.yaml`, never from data.
"""

from tapehouse.folds import span_covered
from tapehouse.tables import table


@table(files=("models_registry/folds.yaml",), fingerprint=span_covered)
def build(b):
    from tapehouse.folds import folds_frame

    return folds_frame(b.folds)
