"""Sensors that send an alert for a failed run and for every failed check of a run that went through."""

import dagster as dg

from resources.alerts import AlertsResource

MAX_EVENTS = 1000


def build_sensors() -> list[dg.SensorDefinition]:
    """`alert_failed_run` and `alert_failed_checks`, on by default."""

    # A run from the shell names no code location, so only a sensor of all locations sees it.
    @dg.run_failure_sensor(default_status=dg.DefaultSensorStatus.RUNNING, monitor_all_code_locations=True)
    def alert_failed_run(context: dg.RunFailureSensorContext, alerts: AlertsResource) -> None:
        """A run failed: its error, and the checks that failed in it."""
        lines = [context.failure_event.message or "", *failed_checks(context.instance, context.dagster_run.run_id)]
        for event in context.get_step_failure_events():
            error = event.event_specific_data.error  # type: ignore[union-attr]
            lines.append(f"{event.step_key}: {_root_cause(error)}")
        _send(context, alerts, f"Tapehouse: run {context.dagster_run.run_id[:8]} failed", lines)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        monitor_all_code_locations=True,
    )
    def alert_failed_checks(context: dg.RunStatusSensorContext, alerts: AlertsResource) -> None:
        """A run succeeded, but checks that do not block failed in it."""
        lines = failed_checks(context.instance, context.dagster_run.run_id)
        if lines:
            _send(context, alerts, f"Tapehouse: {len(lines)} failed checks in run {context.dagster_run.run_id[:8]}", lines)

    return [alert_failed_run, alert_failed_checks]


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """One line for each failed check evaluation of a run."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION, limit=MAX_EVENTS).records
    lines = []
    for record in records:
        event = record.event_log_entry.dagster_event
        evaluation = event.asset_check_evaluation_data if event else None
        if evaluation is not None and not evaluation.passed:
            where = evaluation.asset_key.to_user_string()
            said = {k: v.value for k, v in evaluation.metadata.items() if k in ("partition", "reasons", "failed", "leaks")}
            lines.append(f"{evaluation.severity.value} {where} {evaluation.check_name}: {said}")
    return lines


def _root_cause(error) -> str:
    while error.cause is not None:
        error = error.cause
    return error.message.strip()


def _send(context, alerts: AlertsResource, title: str, lines: list[str]) -> None:
    body = "\n".join(line for line in lines if line)
    sent = alerts.send(title, body)
    context.log.info(f"{'sent' if sent else 'no ALERT_URLS, not sent'}: {title}\n{body}")
