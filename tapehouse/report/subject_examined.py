"""What a predictor's foresight rests on, and how far what it was tested on is what it had learned from."""

from __future__ import annotations

from tapehouse.adversarial import ALL as BLOCK
from tapehouse.adversarial import INSIDE
from tapehouse.combinatorial import WHOLE
from tapehouse.importance import ALL
from tapehouse.report.importance_figure import adversarial_figure, importance_figure, paths_figure, tells_apart
from tapehouse.report.section import Section, Subject
from tapehouse.report.shell import chart
from tapehouse.report.verdict import number, percent


def importance_section(subject: Subject) -> Section | None:
    """How much worse it foretells with features in disorder; None for what has no features of its own."""
    rows = subject.rows("reports.importance")
    if rows is None:
        return None
    fold = rows["fold"].max()
    whole = rows.filter(fold=fold, kind=ALL).row(0, named=True)
    body = (
        f"<p>On rows that it was not fitted on, its log loss was {_against(whole['log_loss'], whole['base_log_loss'])} what "
        f"the shares of the labels score by themselves{_of_side(whole)}. What rises below is what it rests on, right or "
        "wrong.</p>"
    )
    note = (
        f"The training window of {fold} in {whole['blocks']} purged blocks: fitted on the others, asked on each, before and "
        "after values changed places among its rows. Intervals are of the rows, not of the fit: with labels drawn from a hat "
        "some exclude zero, too."
    )
    return Section(
        "importance", "What it rests on", body + chart("importance-chart"), note, {"importance-chart": importance_figure(rows)}
    )


def paths_section(subject: Subject) -> Section | None:
    """Its Sharpe ratio by each way of leaving blocks of the span out; None for what is not fitted."""
    rows = subject.rows("reports.paths")
    if rows is None or rows["path"].n_unique() < 2 or rows.filter(part=WHOLE)["sharpe"].drop_nulls().is_empty():
        return None
    ratios = rows.filter(part=WHOLE)["sharpe"].drop_nulls()
    body = (
        f"<p>Over the span the ratio lies between {number(ratios.min())} and {number(ratios.max())}, by which groups of "
        "sessions the model was fitted without.</p>"
    )
    note = (
        f"{rows['path'].n_unique()} combinatorial purged paths. Models were fitted on sessions after those that they trade: "
        "no figure of what could have been earned, no independent draws, and nothing to rank by."
    )
    walk_forward = subject.record.sharpe if subject.record is not None and subject.record.trades else None
    figures = {"paths-chart": paths_figure(rows, walk_forward)}
    return Section("paths", "Combinatorial paths", body + chart("paths-chart"), note, figures)


def adversarial_section(subject: Subject) -> Section | None:
    """How well its test blocks can be told from what came before them, by features; the same for all subjects."""
    rows, models = subject.rows("reports.adversarial"), subject.rows("models.adapters")
    if models is None or not models["rows"].sum():  # nothing was fitted
        return None
    if rows is None or rows.filter(kind=BLOCK)["auc"].drop_nulls().is_empty():
        return None
    blocks, inside = rows.filter(kind=BLOCK).drop_nulls("auc"), rows.filter(kind=INSIDE)
    beyond = blocks.join(inside.select("fold", most="high"), on="fold")
    above = beyond.filter(beyond["auc"] > beyond["most"]).height
    by = ", ".join(f"{name} ({percent(share, 0).lstrip('+')})" for name, share in tells_apart(rows))
    body = (
        f"<p>{above} of {blocks.height} blocks are told from their training window better than any stretch inside it from the "
        f"rest. What gives them away most: {by} of what the trees gained.</p>"
    )
    note = (
        "Area under the ROC curve of trees that learn which side a decision is of, on parts that they saw nothing near: 0.5 "
        "where a block looks like what came before it. By the features that recipes learn from; the same for all subjects."
    )
    return Section(
        "adversarial", "Was it tested on what it knew?", body + chart("adversarial-chart"), note,
        {"adversarial-chart": adversarial_figure(rows)},
    )  # fmt: skip


def _against(ours: float, base: float) -> str:
    return f"{number(ours, 4)}, {number(abs(base - ours), 4)} {'below' if ours < base else 'above'}"


def _of_side(whole: dict) -> str:
    if whole["side_log_loss"] is None:
        return ""
    return f"; of the side alone, where a barrier was reached, {_against(whole['side_log_loss'], whole['base_side_log_loss'])}"
