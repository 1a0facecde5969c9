"""One JSON call over HTTP to a service of ours, with its failures named by who must act."""

from typing import Any

import httpx

from interlock.errors import ServiceRefused, ServiceUnavailable

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpService:
    """A JSON service at one base address. Time-outs are short: these are neighbours, and a release waits for the answer."""

    def __init__(self, name: str, base_url: str, *, timeout_seconds: float, headers: dict[str, str] | None = None) -> None:
        self._name = name
        # trust_env: a proxy from the environment cannot reach this machine's loopback, and a rollback must not depend on one.
        self._client = httpx.Client(base_url=base_url, timeout=timeout_seconds, headers=headers, trust_env=False)

    def get(self, path: str, **params: str | int) -> Any:
        """GET, answer decoded. Raises ServiceUnavailable or ServiceRefused."""
        return self._call("GET", path, params=params)

    def post(self, path: str, body: Any) -> Any:
        """POST a JSON body, answer decoded. Raises ServiceUnavailable or ServiceRefused."""
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise ServiceUnavailable(f"{self._name} does not answer {method} {path} ({type(error).__name__}): is it up?") from error
        if response.status_code in TRANSIENT_STATUS:
            raise ServiceUnavailable(f"{self._name} answered {response.status_code} to {method} {path}: {_message(response)}")
        if response.status_code >= 300:  # a redirect is no answer either: the address is wrong
            raise self.refusal(response, f"{method} {path}")
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise ServiceUnavailable(f"{self._name} answered {method} {path} with something that is not JSON") from error

    def refusal(self, response: httpx.Response, call: str) -> Exception:
        """The exception for an answer that is no."""
        return ServiceRefused(f"{self._name} refused {call} ({response.status_code}): {_message(response)}")


def _message(response: httpx.Response) -> str:
    try:
        body = response.json()
        text = body.get("message") or body.get("detail") or body if isinstance(body, dict) else body
    except ValueError:
        text = response.text
    return " ".join(str(text).split())[:300]
