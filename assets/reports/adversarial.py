"""One row per (fold, kind, level): how well decisions of a test block can be told from those of the training window before it.

By trees that saw nothing near what they are asked about, beside the same for stretches inside the window, and by each
feature alone; tapehouse/adversarial.py says how. Features are those that recipes which are made by default learn from.
"""

from tapehouse.tables import reads, table


def fingerprint(settings, start, end):
    from tapehouse.adversarial import declared_features

    return declared_features(settings.home)


@table(
    reads("features.decision_points", window="fold"),
    fingerprint=fingerprint,
)
def build(b):
    from tapehouse.adversarial import ALL, adversarial_rows, learned_features
    from tapehouse.recipes import FOLDER, load_recipes

    points = b.read("features.decision_points")
    rows = adversarial_rows(points, b.fold, learned_features(load_recipes(b.settings.home / FOLDER).values(), points))
    b.note(auc=rows.filter(kind=ALL)["auc"][0])
    return rows
