"""Recipes become assets: one YAML in `models_registry/adapters/` is a model, its predictions, evaluation and backtest."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.codeversion import modules_version
from tapehouse.project import Asset, Output
from tapehouse.recipes import Recipe, load_recipes
from tapehouse.tables import Read

FOLDER = Path("models_registry/adapters")
TOKENS = {"sft": "datasets.sft_tokens", "dpo": "datasets.preference_tokens"}
POINTS, LABELS = "features.decision_points", "labels.triple_barrier"
BARS, ACTIONS = "staging.bar_versions", "raw.corporate_actions"

# What each step's rows follow from; a change in any of these modules makes the step stale.
TRAINING = ("tapehouse.training.__main__", "tapehouse.training.jobs")
FITTING = ("tapehouse.baselines",)
ANSWERING = ("tapehouse.inference", "tapehouse.prompts")
JUDGING = ("tapehouse.evaluation",)
TRADING = ("tapehouse.backtest.run", "tapehouse.metrics", "tapehouse.baselines")


def recipe_assets(home: Path) -> list[Asset]:
    """Four assets for each recipe: `models.<name>`, its predictions, its evaluation and its backtest, all by fold."""
    found = []
    for name, recipe in load_recipes(home / FOLDER).items():
        source = home / FOLDER / f"{name}.yaml"
        found += [_model(recipe, source), _predictions(recipe, source), _evaluation(recipe, source), _backtest(recipe, source)]
    return found


def _asset(recipe: Recipe, source: Path, name: str, doc: str, outputs: dict[str, str], reads: tuple, build, modules) -> Asset:
    key = {"models.adapters": "adapter", "models.predictions": "adapter"}
    return Asset(
        name=name,
        doc=doc,
        by="folds",
        reads=reads,
        outputs=tuple(Output(a, t, ((key.get(t, "subject"), recipe.name),)) for a, t in outputs.items()),
        build=build,
        code_version=modules_version(modules, recipe.hash),
        source=source,
        kind="torch" if recipe.kind == "adapter" and name == f"models.{recipe.name}" else "python",
    )


def _model(recipe: Recipe, source: Path) -> Asset:
    if recipe.kind == "adapter":
        reads = (Read(TOKENS[recipe.method], window="train"), Read(f"models.{recipe.base}"), Read("models.tokenizer"))
        if recipe.init_from:
            reads += (Read("models.adapters", writer=f"models.{recipe.init_from}"),)
        modules, build = TRAINING, train_adapter
    else:
        reads = (Read(POINTS, window="train"), Read(LABELS, window="train")) if recipe.method == "gbm" else ()
        modules, build = FITTING, fit_baseline
    return _asset(
        recipe,
        source,
        f"models.{recipe.name}",
        f"One row per (adapter, fold): {recipe.description}",
        {f"models.{recipe.name}": "models.adapters"},
        reads,
        lambda b: build(b, recipe),
        modules,
    )


def _predictions(recipe: Recipe, source: Path) -> Asset:
    own = Read("models.adapters", writer=f"models.{recipe.name}")
    reads: tuple[Read, ...] = (own, Read(POINTS, window="test"))
    if recipe.kind == "adapter":
        reads += (Read(f"models.{recipe.base}"), Read("models.tokenizer"))
    return _asset(
        recipe,
        source,
        f"models.predictions.{recipe.name}",
        f"One row per (adapter, fold, symbol, interval, decision_at): what {recipe.name} would do over the test block.",
        {f"models.predictions.{recipe.name}": "models.predictions"},
        reads,
        lambda b: (adapter_predictions if recipe.kind == "adapter" else baseline_predictions)(b, recipe),
        ANSWERING if recipe.kind == "adapter" else FITTING,
    )


def _evaluation(recipe: Recipe, source: Path) -> Asset:
    reads = (_own_predictions(recipe), Read(POINTS, window="test"), Read(LABELS, window="test"))
    return _asset(
        recipe,
        source,
        f"reports.evaluations.{recipe.name}",
        f"One row per (subject, fold, metric): how well {recipe.name} foresaw what its test block brought.",
        {f"reports.evaluations.{recipe.name}": "reports.evaluations"},
        reads,
        lambda b: evaluate_subject(b, recipe),
        JUDGING,
    )


def _backtest(recipe: Recipe, source: Path) -> Asset:
    # Bars from before the block, for the first order's basis; the block's own are read up to its last close.
    around = {"window": "test", "lookback_months": 1, "lookahead_months": 1}
    reads = (_own_predictions(recipe), Read(POINTS, window="test"), Read(BARS, **around), Read(ACTIONS, **around))
    tables = ("reports.backtests", "reports.backtest_equity", "reports.backtest_trades")
    return _asset(
        recipe,
        source,
        f"reports.backtests.{recipe.name}",
        f"One row per (subject, fold, …): what an account that follows {recipe.name} earned over the test block, at cost.",
        {f"{t}.{recipe.name}": t for t in tables},
        reads,
        lambda b: backtest_subject(b, recipe),
        TRADING,
    )


def _own_predictions(recipe: Recipe) -> Read:
    return Read("models.predictions", writer=f"models.predictions.{recipe.name}")


def train_adapter(b, recipe: Recipe) -> pl.DataFrame:
    """Train one adapter for a fold in a process of its own, log it to MLflow, and return its row of `models.adapters`."""
    from tapehouse.tokens import stored_tokenizer_path
    from tapehouse.tracking import log_adapter, read_metrics
    from tapehouse.training.jobs import export_job, progress_line, run_job, store_by_digest
    from tapehouse.training.manifest import git_state

    base = b.read(f"models.{recipe.base}").row(0, named=True)
    provenance = {
        "snapshot": b.snapshot,
        "fold": b.fold.id,
        "train_end": b.fold.train_end,
        **git_state(b.settings.home),
        "run_id": b.run_id,
    }
    job, out = b.workdir / "job", b.workdir / "out"
    tokens = b.read(TOKENS[recipe.method])
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root)
    root, parent = b.settings.root, None
    if recipe.init_from:
        parent = root / b.read("models.adapters").row(0, named=True)["path"]
    export_job(
        job, recipe, tokens, root / base["path"], tokenizer, recipe.seed, provenance, b.settings.threads, init_dir=parent
    )
    manifest = run_job(job, out, lambda facts: b.progress(progress_line(facts)), b.launch)
    metrics = read_metrics(out)
    weights = store_by_digest(out)
    tracked = log_adapter(b.settings.tracking_uri, manifest, metrics, b.settings.root / "mlflow", weights)
    b.note(**{k: manifest[k] for k in ("loss", "wall_s", "tokens", "rows_purged")}, path=str(weights), mlflow_run=tracked)
    return _adapter_row(b, recipe, manifest, str(weights.relative_to(b.settings.root)))


def fit_baseline(b, recipe: Recipe) -> pl.DataFrame:
    """Fit a baseline (for a rule there is nothing to fit) and return its row of `models.adapters`."""
    from tapehouse.baselines import fit
    from tapehouse.training.manifest import git_state

    read = {r.table for r in b.asset.reads}
    points, labels = (b.read(t) if t in read else pl.DataFrame() for t in (POINTS, LABELS))
    fitted = fit(recipe, points, labels, b.fold, b.workdir)
    manifest = {**fitted, "seed": recipe.seed, "snapshot": b.snapshot, **git_state(b.settings.home)}
    b.note(rows=fitted["rows"])
    return _adapter_row(b, recipe, manifest, str(b.workdir.relative_to(b.settings.root)))


def adapter_predictions(b, recipe: Recipe) -> pl.DataFrame:
    """The adapter's answer at every decision point of the test block."""
    from tapehouse.baselines import PREDICTIONS
    from tapehouse.inference import predict
    from tapehouse.orders import load_objectives
    from tapehouse.prompts import render_orders
    from tapehouse.tokens import stored_tokenizer_path

    points = b.read(POINTS)
    words = load_objectives(b.settings.home / "objectives.yaml").words[recipe.prompt.objective]
    prompts = render_orders(points, words)
    folders = (b.read(t).row(0, named=True)["path"] for t in (f"models.{recipe.base}", "models.adapters"))
    base, adapter = (b.settings.root / folder for folder in folders)
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root)
    answers = predict(base, adapter, tokenizer, prompts.to_list(), recipe.prompt.batch_size)
    b.note(unparseable=float((answers["parse_state"] != "ok").mean()), **_shares(answers["action"]))
    return pl.concat([points.select("symbol", "interval", "decision_at"), answers], how="horizontal").with_columns(
        adapter=pl.lit(recipe.name),
        fold=pl.lit(b.fold.id),
        objective=pl.lit(recipe.prompt.objective),
        limit_valid_sessions=pl.lit(recipe.prompt.limit_valid_sessions),
    ).select(pl.col(name).cast(kind) for name, kind in PREDICTIONS.items())


def baseline_predictions(b, recipe: Recipe) -> pl.DataFrame:
    """The baseline's decision at every decision point of the test block."""
    from tapehouse.baselines import predict

    folder = b.settings.root / b.read("models.adapters").row(0, named=True)["path"]
    rows = predict(recipe, b.read(POINTS), b.fold, folder)
    b.note(**_shares(rows["action"]))
    return rows


def evaluate_subject(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`."""
    from tapehouse.evaluation import evaluation_rows

    return evaluation_rows(recipe.name, b.fold.id, b.read("models.predictions"), b.read(POINTS), b.read(LABELS))


def backtest_subject(b, recipe: Recipe) -> dict[str, pl.DataFrame]:
    """Rows of `reports.backtests`, `reports.backtest_equity` and `reports.backtest_trades`."""
    from tapehouse.backtest.config import BacktestConfig
    from tapehouse.backtest.run import run_backtest
    from tapehouse.baselines import exit_rule
    from tapehouse.calendars import sessions
    from tapehouse.metrics import backtest_rows

    universe = b.settings.universe
    block = sessions(b.fold.test_first_session, b.fold.test_end.date(), universe.calendar)
    result = run_backtest(
        b.read("models.predictions"),
        b.read(POINTS),
        b.read(BARS),
        b.read(ACTIONS),
        block.filter(pl.col("session") <= b.fold.test_last_session),
        BacktestConfig(exit_rule=exit_rule(recipe.method)),
    )
    keys = {"subject": pl.lit(recipe.name), "fold": pl.lit(b.fold.id)}
    b.note(trades=result.trades.height, final_equity=float(result.equity["equity"][-1]), **result.counts)
    return {
        "reports.backtests": backtest_rows(recipe.name, b.fold.id, result),
        "reports.backtest_equity": result.equity.with_columns(**keys),
        "reports.backtest_trades": result.trades.with_columns(**keys),
    }


def _adapter_row(b, recipe: Recipe, manifest: dict[str, Any], path: str) -> pl.DataFrame:
    # Wall times and ids of runs differ between repetitions, so they stay out of the hashed row (they are in the manifest file).
    repeatable = {k: v for k, v in manifest.items() if k not in UNREPEATABLE}
    return pl.DataFrame(
        {
            "adapter": [recipe.name],
            "fold": [b.fold.id],
            "method": [recipe.method],
            "recipe_hash": [recipe.hash],
            "snapshot": [b.snapshot],
            "base_digest": [manifest.get("base_digest")],
            "digest": [manifest["digest"]],
            "path": [path],
            "git_commit": [manifest.get("git_commit")],
            "seed": [recipe.seed],
            "rows": [manifest["rows"]],
            "tokens": [manifest.get("tokens", 0)],
            "manifest": [json.dumps(repeatable, sort_keys=True, default=str)],
        },
        schema_overrides={"base_digest": pl.String, "git_commit": pl.String, "tokens": pl.Int64, "rows": pl.Int64},
    )


UNREPEATABLE = {"wall_s", "run_id", "tokens_per_s"}


def _shares(actions: pl.Series) -> dict[str, float]:
    return {f"share_{a.lower()}": float((actions == a).mean() or 0.0) for a in ("BUY", "SELL", "HOLD")}
