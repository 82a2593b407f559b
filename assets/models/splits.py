"""One row per (scheme, fold, split, block): a block of sessions and whether it trains, validates or is tested in that split.

The folds, and what `models_registry/folds.yaml` declares as cross-validation: K-fold and combinatorial, of each fold's training
window or of the span. Rows are purged by their labels' own intervals: `tapehouse.declared_splits.declared_splits` does it.
"""

from tapehouse.folds import span_covered
from tapehouse.tables import table


@table(files=("models_registry/folds.yaml",), fingerprint=span_covered)
def build(b):
    from tapehouse.calendars import sessions
    from tapehouse.declared_splits import splits_frame
    from tapehouse.folds import FOLDS_FILE, read_spec

    spec = read_spec(b.settings.home / FOLDS_FILE)
    return splits_frame(b.folds, spec, sessions(b.start, b.end, spec.calendar))
