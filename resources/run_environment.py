"""Names of the secrets in the environment that no run needs, and the environment without them that runs get."""

from collections.abc import Mapping

INBOX_TOKEN = "ML_ASSETS_INBOX_TOKEN"  # noqa: S105 - the variable's name
ALERT_WEBHOOK = "ML_ASSETS_ALERT_WEBHOOK"
ALERT_SLACK = "ML_ASSETS_ALERT_SLACK"
NOT_FOR_RUNS = (INBOX_TOKEN, ALERT_WEBHOOK, ALERT_SLACK)
"""Of the inbox's endpoint and of the sensor that sends alerts: the code of a pipeline must not be able to use them."""


def run_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that runs are to inherit."""
    return {name: value for name, value in environment.items() if name not in NOT_FOR_RUNS}
