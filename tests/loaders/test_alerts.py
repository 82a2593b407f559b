"""Alerts: a failing run and a failing check reach an address through apprise."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from loaders.alerts import build_sensors, failed_checks
from resources.alerts import AlertsResource
from tapehouse.errors import TapehouseError
from tests.house import TOY_MONTHS
from tests.loaders.in_process import Ran, run

JAN, FEB, MAR = TOY_MONTHS[:3]


class Post(BaseHTTPRequestHandler):
    """Keeps what is posted; answers with the status that the server was told."""

    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *words):
        logging.getLogger("test").debug(*words)


@pytest.fixture
def inbox():
    """An HTTP server on loopback that takes what apprise's json:// sends."""
    server = HTTPServer(("127.0.0.1", 0), Post)
    server.received, server.status = [], 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(server) -> str:
    return f"json://127.0.0.1:{server.server_port}/alerts"


def sensor(name: str) -> dg.SensorDefinition:
    return next(s for s in build_sensors() if s.name == name)


def evaluate(name: str, ran: Ran, alerts: AlertsResource) -> None:
    """Run a sensor on the end of a run, as the daemon does."""
    kind = dg.DagsterEventType.RUN_SUCCESS if ran.success else dg.DagsterEventType.RUN_FAILURE
    (event,) = ran.events(kind)
    context = dg.build_run_status_sensor_context(
        sensor_name=name,
        dagster_instance=ran.instance,
        dagster_run=ran.instance.get_run_by_id(ran.run_id),
        dagster_event=event,
        resources={"alerts": alerts},
    )
    context = context if ran.success else context.for_run_failure()
    sensor(name)(context)


@pytest.fixture
def failed(toy):
    """A run in which February broke its contract."""
    (toy.home / "ticks.csv").write_text(
        (toy.home / "ticks.csv").read_text().replace("-02-15T21:00:00Z,11.25", "-02-15T21:00:00Z,-1.5")
    )
    toy.make("raw.ticks")
    return run(toy, "staging.ticks", first=JAN, last=MAR)


@pytest.fixture
def warned(toy):
    """A run that went through, with a failed quality check."""
    toy.edit("checks/staging/ticks.yaml", "max_value: 500", "max_value: 2")
    toy.make("raw.ticks")
    return run(toy, "staging.ticks", first=FEB)


def test_a_failed_run_is_sent_with_its_cause_and_its_checks(failed, inbox):
    assert not failed.success
    evaluate("alert_failed_run", failed, AlertsResource(urls=address(inbox)))
    (post,) = inbox.received
    assert post["title"] == f"Tapehouse: run {failed.run_id[:8]} failed"
    assert "ERROR staging/ticks contract" in post["message"]
    assert FEB in post["message"]
    assert "expect_column_values_to_be_between" in post["message"]
    assert "keep their last good rows" in post["message"]


def test_failed_checks_of_a_run_that_went_through_are_sent(warned, inbox):
    assert warned.success
    evaluate("alert_failed_checks", warned, AlertsResource(urls=address(inbox)))
    (post,) = inbox.received
    assert post["title"] == f"Tapehouse: 1 failed checks in run {warned.run_id[:8]}"
    assert post["message"].startswith("WARN staging/ticks quality")


def test_a_run_without_a_fault_sends_nothing(toy, inbox):
    toy.make("raw.ticks")
    result = run(toy, "staging.ticks", first=FEB)
    assert failed_checks(result.instance, result.run_id) == []
    evaluate("alert_failed_checks", result, AlertsResource(urls=address(inbox)))
    assert inbox.received == []


def test_without_an_address_it_is_logged_and_not_sent(failed, capsys):
    evaluate("alert_failed_run", failed, AlertsResource())
    logged = capsys.readouterr().err
    assert "no ALERT_URLS, not sent: Tapehouse: run" in logged
    assert "keep their last good rows" in logged


def test_every_address_gets_the_message(inbox):
    assert AlertsResource(urls=f"{address(inbox)} {address(inbox)}/second").send("a title", "a body") is True
    assert [post["title"] for post in inbox.received] == ["a title", "a title"]
    assert AlertsResource(urls="  ").send("a title", "a body") is False


def test_a_bad_address_is_a_clear_error_that_does_not_tell_the_address(inbox):
    secret = "nonsense-with-a-secret"
    with pytest.raises(TapehouseError, match="ALERT_URLS: target 2 of 2 is not an apprise address") as caught:
        AlertsResource(urls=f"{address(inbox)} {secret}").send("a title", "a body")
    assert secret not in str(caught.value)


def test_a_target_that_does_not_take_the_alert_is_an_error(inbox):
    inbox.status = 500
    with pytest.raises(TapehouseError, match="ALERT_URLS: at least one of 1 targets did not take the alert 'a title'"):
        AlertsResource(urls=address(inbox)).send("a title", "a body")


def test_the_sensors_are_on_from_the_start():
    assert {s.name: s.default_status for s in build_sensors()} == {
        "alert_failed_run": dg.DefaultSensorStatus.RUNNING,
        "alert_failed_checks": dg.DefaultSensorStatus.RUNNING,
    }
