"""One row per (adapter): whether the newest model of a recipe holds the title of champion in the registry, and why not.

The gates are declared in models_registry/judging.yaml. The registry's alias follows these rows: it is set where all gates pass,
and taken away where they do not any more.
"""

from tapehouse.tables import reads, table


@table(
    reads("reports.verdicts"),
    reads("models.adapters", window="all"),
    reads("models.predictions", window="all"),
    files=("models_registry/judging.yaml", "checks/models/predictions.yaml"),
)
def build(b):
    from tapehouse.champions import champions, newest
    from tapehouse.errors import TapehouseError
    from tapehouse.judging_rules import load_rules
    from tapehouse.registry import promote, withdraw
    from tapehouse.tables import load_doc

    models = newest(b.read("models.adapters"))
    quality = load_doc(b.settings.home / "checks/models/predictions.yaml").quality
    rules = load_rules(b.settings.home)
    predictions = b.read("models.predictions")
    rows = champions(models, b.read("reports.verdicts"), predictions, quality, rules.champion, rules.controls)
    for name, digest, champion in rows.select("adapter", "digest", "champion").iter_rows():
        if champion and promote(b.settings.tracking_uri, name, digest) is None:
            raise TapehouseError(
                f"{name}: passes every gate, but the registry has no version of its weights {digest}; make the model again"
            )
        if not champion:
            withdraw(b.settings.tracking_uri, name)
    b.note(champions=int(rows["champion"].sum()), challengers=rows.height)
    return rows
