"""The kubelet's client: plain requests to the API server of a kubeconfig, whether the double's or a real one."""

import json
from pathlib import Path
from typing import Any

from tests.kubernetes.double.handler import KUBELET_AGENT
from tests.kubernetes.double.objects import ApiError

MERGE = "application/merge-patch+json"
_TIMEOUT_SECONDS = 10.0


class UnreachableError(Exception):
    """The API server refused the connection, or did not answer."""


class Rest:
    """Requests with the credentials of a kubeconfig."""

    def __init__(self, kubeconfig: str | Path) -> None:
        import kubernetes.client
        import kubernetes.config

        configuration = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        client = kubernetes.client.ApiClient(configuration)
        self._pool = client.rest_client.pool_manager
        self.host: str = configuration.host.rstrip("/")
        self._headers = {"Accept": "application/json", "User-Agent": KUBELET_AGENT}
        for setting in configuration.auth_settings().values():
            if setting.get("value"):
                self._headers[setting["key"]] = setting["value"]

    def __call__(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Return the answer. Raises ApiError for an answer that is no success, UnreachableError for none."""
        import urllib3.exceptions

        try:
            answer = self._pool.request(
                method,
                self.host + path,
                body=None if body is None else json.dumps(body).encode(),
                headers={**self._headers, "Content-Type": content_type},
                timeout=_TIMEOUT_SECONDS,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(f"{method} {self.host}{path}: {error}") from error
        if answer.status >= 300:
            raise ApiError(answer.status, answer.data.decode(errors="replace")[:2000])
        return json.loads(answer.data)

    def close(self) -> None:
        self._pool.clear()
