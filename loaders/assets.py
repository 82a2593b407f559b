"""Declarations become Dagster assets: one uniform body that materialises, reports numbers and judges."""

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from loaders.partitions import partition_mapping, partitions_def
from loaders.pipes import launcher
from resources.warehouse import WarehouseResource
from tapehouse.dataset_cards import card_path, is_carded, write_card
from tapehouse.engine import Outcome, materialise
from tapehouse.expectations import Result, describe
from tapehouse.judging import OutputOutcome
from tapehouse.project import ONCE, Asset, Output, Project
from tapehouse.shown_values import SCANS, is_scanned

log = logging.getLogger("tapehouse")
CONTRACT, QUALITY = "contract", "quality"


def asset_key(name: str) -> dg.AssetKey:
    """`features.price` is the asset `features/price`."""
    return dg.AssetKey(name.split("."))


def build_assets(project: Project) -> list[dg.AssetsDefinition]:
    """One Dagster definition per asset of the project."""
    return [_build_asset(project, asset) for asset in project.assets.values()]


def _build_asset(project: Project, asset: Asset) -> dg.AssetsDefinition:
    partitions = partitions_def(project, asset)
    specs = [_spec(project, asset, output) for output in asset.outputs]
    checks = [check for output in asset.outputs for check in _check_specs(project, asset, output)]

    @dg.multi_asset(
        name=asset.name.replace(".", "__"),
        specs=specs,
        check_specs=checks,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run() if partitions is not None else None,
    )
    def body(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult]:
        keys = list(context.partition_keys) if context.has_partition_key or context.has_partition_key_range else [ONCE]

        def progress(words: str) -> None:
            log.info("  %s: %s", asset.name.replace(".", "/"), words)

        outcome = materialise(
            project, warehouse.lake, asset.name, keys, run_id=context.run_id, launch=launcher(context, progress)
        )
        # Also where some partitions failed: the others have changed what the table holds.
        cards = {o.output.table: _card(project, warehouse, o.output.table) for o in outcome.outputs}
        for made in outcome.outputs:
            if keys != [ONCE]:
                for part in made.made:
                    if part.partition not in made.failed:
                        context.add_asset_metadata(
                            {"dagster/partition_row_count": part.rows, "content_hash": part.out_hash},
                            asset_key(made.output.asset),
                            part.partition,
                        )
        if outcome.failed:
            _fail(context, asset, outcome, keys)
        for made in outcome.outputs:
            yield dg.MaterializeResult(
                asset_key=asset_key(made.output.asset),
                metadata=_numbers(outcome, made) | cards[made.output.table],
                check_results=_check_results(project, made),
            )

    return body


def _fail(context: dg.AssetExecutionContext, asset: Asset, outcome: Outcome, keys: list[str]) -> None:
    """Log the failed partitions' checks and the good partitions' rows, then fail the run naming what failed."""
    words = []
    bad = {p for failed in outcome.failed.values() for p in failed}
    for made in outcome.outputs:
        for partition, reasons in made.failed.items():
            words.append(f"{made.output.table} {partition}".strip() + f": {'; '.join(reasons)}")
            # One evaluation a failed partition, named in its metadata: a check that is itself partitioned (a preview feature)
            # reads as "skipped" in the UI after a range that passed.
            evaluation = dg.AssetCheckEvaluation(
                asset_key=asset_key(made.output.asset),
                check_name=CONTRACT,
                passed=False,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"partition": partition or "all", "reasons": "\n".join(reasons)},
                blocking=True,
            )
            context.log_event(evaluation)
        for part in made.made:
            if part.partition not in bad and keys != [ONCE]:
                metadata = {"dagster/partition_row_count": part.rows, "content_hash": part.out_hash}
                context.log_event(
                    dg.AssetMaterialization(asset_key(made.output.asset), partition=part.partition, metadata=metadata)
                )
    raise dg.Failure(
        description=f"{asset.name}: the contract failed; these partitions keep their last good rows: " + " | ".join(words),
        allow_retries=False,
    )


def _numbers(outcome: Outcome, made: OutputOutcome) -> dict[str, Any]:
    rows = sum(p.rows for p in made.made)
    numbers: dict[str, Any] = {
        "dagster/row_count": rows,
        "partitions_changed": sum(p.changed for p in made.made),
        "read_at_snapshot": outcome.snapshot,
    }
    if len(made.made) == 1:
        numbers["content_hash"] = made.made[0].out_hash
    return numbers | {name: _shown(value) for name, value in outcome.notes.items()}


def _card(project: Project, warehouse: WarehouseResource, table: str) -> dict[str, Any]:
    """The card of a dataset, written anew beside the warehouse; nothing for other tables."""
    if not is_carded(table):
        return {}
    text = write_card(project, warehouse.lake, table)
    return {"card": dg.MetadataValue.md(text), "card_file": dg.MetadataValue.path(card_path(project, table))}


def _shown(value: Any) -> Any:
    """A picture is shown in the UI itself, another file as a path that can be copied."""
    if not isinstance(value, Path):
        return value
    if value.suffix == ".png":
        picture = base64.b64encode(value.read_bytes()).decode()
        return dg.MetadataValue.md(f"![{value.name}](data:image/png;base64,{picture})")
    return dg.MetadataValue.path(value)


def _check_results(project: Project, made: OutputOutcome) -> list[dg.AssetCheckResult]:
    key = asset_key(made.output.asset)
    results = [_check_result(key, CONTRACT, made.contract, dg.AssetCheckSeverity.ERROR)]
    if project.tables[made.output.table].doc.quality:
        results.append(_check_result(key, QUALITY, made.quality, dg.AssetCheckSeverity.WARN))
    return results


def _check_result(key: dg.AssetKey, name: str, results: list[Result], severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    table = ["| expectation | holds | seen |", "| --- | --- | --- |"]
    table += [f"| {_cell(r.expectation)} | {'yes' if r.success else '**no**'} | {_cell(r.detail)} |" for r in results]
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=all(r.success for r in results),
        severity=severity,
        metadata={"expectations": dg.MetadataValue.md("\n".join(table)), "failed": sum(not r.success for r in results)},
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _check_specs(project: Project, asset: Asset, output: Output) -> list[dg.AssetCheckSpec]:
    doc = project.tables[output.table].doc
    key = asset_key(output.asset)
    lines = [f"- grain({', '.join(doc.grain)}) is unique", *(f"- {describe(e)}" for e in doc.contract)]
    if is_scanned(output.table, project.tables[output.table].types):
        lines += [f"- {scan}" for scan in SCANS]
    specs = [
        dg.AssetCheckSpec(
            name=CONTRACT,
            asset=key,
            blocking=True,
            description="Judged on the new rows before they are visible.\n" + "\n".join(lines),
        )
    ]
    if doc.quality:
        lines = [f"- {describe(e)}" for e in doc.quality]
        specs.append(dg.AssetCheckSpec(name=QUALITY, asset=key, description="A warning.\n" + "\n".join(lines)))
    return specs


def _group(output: Output) -> str:
    """The schema; shares of a table of many writers are a group of their own, so that a graph of 40 models can be looked at."""
    schema, table = output.table.split(".")
    return f"{schema}_{table}" if len(asset_key(output.asset).path) > 2 else schema


def _spec(project: Project, asset: Asset, output: Output) -> dg.AssetSpec:
    table = project.tables[output.table]
    deps = []
    for read in asset.reads:
        for name in project.writers_of(read):
            upstream = asset_key(project.output_of(read, name).asset)
            deps.append(dg.AssetDep(upstream, partition_mapping=partition_mapping(read, asset, project.assets[name])))
    return dg.AssetSpec(
        key=asset_key(output.asset),
        deps=deps,
        description=output.doc or asset.doc,
        group_name=_group(output),
        owners=[table.doc.owner],
        code_version=asset.code_version,
        kinds={"duckdb", asset.kind},
        metadata=_static_metadata(project, asset, output),
    )


def _static_metadata(project: Project, asset: Asset, output: Output) -> dict[str, Any]:
    table = project.tables[output.table]
    columns = [
        dg.TableColumn(
            name=name,
            type=kind,
            description=table.doc.columns[name].doc if name in table.doc.columns else None,
            constraints=dg.TableColumnConstraints(nullable=name not in table.doc.grain),
        )
        for name, kind in table.types.items()
    ]
    metadata: dict[str, Any] = {
        "dagster/table_name": output.table,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "grain": ", ".join(table.doc.grain),
    }
    if asset.source is not None:
        metadata["declared_in"] = str(asset.source.relative_to(project.settings.home))
    if table.lineage is not None:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [
                    dg.TableColumnDep(asset_key(output), name)
                    for source, name in sources
                    for output in _outputs(project, source)
                ]
                for column, sources in table.lineage.columns.items()
            }
        )
        metadata["rows_decided_by"] = [f"{source}.{name}" for source, name in table.lineage.row_sources]
    return metadata


def _outputs(project: Project, table: str) -> list[str]:
    """The assets whose rows make up a table."""
    return [o.asset for writer in project.writers[table] for o in project.assets[writer].outputs if o.table == table]
