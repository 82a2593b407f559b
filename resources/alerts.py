"""Alerts: one message to every target that `ALERT_URLS` names, through apprise."""

import dagster as dg

from tapehouse.errors import TapehouseError


class AlertsResource(dg.ConfigurableResource):
    """Sends alerts. `urls` are apprise targets separated by blanks; with none, `send` says so and returns False."""

    urls: str = ""

    def send(self, title: str, body: str) -> bool:
        """Send one message to all targets.

        Returns:
            Whether there was a target to send to.

        Raises:
            TapehouseError: a target is not an apprise address, or delivery failed.
        """
        targets = self.urls.split()
        if not targets:
            return False
        import apprise

        sender = apprise.Apprise()
        for number, target in enumerate(targets, 1):
            if not sender.add(target):
                raise TapehouseError(f"ALERT_URLS: target {number} of {len(targets)} is not an apprise address")
        if not sender.notify(title=title, body=body):
            raise TapehouseError(f"ALERT_URLS: at least one of {len(targets)} targets did not take the alert {title!r}")
        return True
