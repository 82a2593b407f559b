"""Rendering the page of one recipe or strategy."""

from pathlib import Path

import polars as pl


def run(
    b, name: str, source: Path, predictors: tuple[str, ...], baselines: tuple[str, ...], controls: tuple[str, ...]
) -> pl.DataFrame:
    """The row of `reports.pages`; the page and its preview lie in the reports' folder, named after the subject."""
    from tapehouse.files import replace_file
    from tapehouse.report.caveats import hindsight
    from tapehouse.report.links import pageless
    from tapehouse.report.provenance import page_row
    from tapehouse.report.section import subject_of
    from tapehouse.report.subject import headline, subject_html
    from tapehouse.report.subject_preview import subject_png
    from tapehouse.report.subject_provenance import subject_provenance
    from tapehouse.training.manifest import git_state
    from tapehouse.yaml_files import parse_yaml

    home, commit = b.settings.home, git_state(b.settings.home)
    declared = source.read_text(encoding="utf-8")
    written: dict[str, list[pl.DataFrame]] = {}
    for read in b.asset.reads:  # equity curves of several writers
        written.setdefault(read.table, []).append(b.read(read.table, read.writer))
    tables = {table: pl.concat(parts) for table, parts in written.items()}
    subject = subject_of(
        name,
        parse_yaml(declared)["description"],
        declared,
        source.relative_to(home).as_posix(),
        predictors,
        tables,
        (tables.pop("staging.bars"), tables.pop("raw.corporate_actions")),
        baselines,
        b.end,
        controls,
        pageless(b) if predictors else (),
    )
    page, preview = (b.settings.reports_dir / f"{name}{suffix}" for suffix in (".html", ".png"))
    made, caveats = subject_provenance(subject, b.snapshot, commit), (hindsight(b.settings.universe.tradable),)
    replace_file(page, subject_html(subject, made, caveats).encode())
    replace_file(preview, subject_png(subject))
    b.note(says=headline(subject), report=page, preview=preview)
    return pl.DataFrame([page_row(name, page, b.settings.root, b.snapshot, commit)])
