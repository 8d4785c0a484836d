"""Speaks GraphQL to a running Dagster webserver, as its UI does."""

import json
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Graphql:
    """A Dagster webserver's GraphQL endpoint.

    Attributes:
        url: The webserver's address.
    """

    url: str

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the `data` of an answer.

        Raises:
            AssertionError: If the answer holds errors.
        """
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]
