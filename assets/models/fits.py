"""One row per (fold, kind, key): a number that was fitted on the fold's training window alone.

The market's hidden states (kind hmm), see tapehouse/fits.py for the keys.
"""

from tapehouse.tables import reads, table


@table(reads("features.price", window="train"))
def build(b):
    from tapehouse.fits import fit_rows
    from tapehouse.hmm import fitted

    universe = b.settings.universe
    price = b.read("features.price").filter(interval=universe.interval)
    hidden = fitted(price.filter(symbol=universe.benchmark))
    b.note(hmm_rows=hidden.rows, hmm_log_likelihood=hidden.values.get("log_likelihood"))
    return fit_rows(b.fold, [hidden])
