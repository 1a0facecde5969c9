"""
The HTTP face of one loaded model version: an RSGI application with the routes of `mlflow models serve`, and /metrics.

Answers of other paths and methods are those of MLflow's server too. Not offered: its generated API pages (/docs, /openapi.json) and its
redirects from paths with a trailing slash. It has no deadline of its own where MLflow's server gives up after 60 s: the traffic plane has
one, and the thread would go on computing anyway.
"""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from interlock.model.release import ModelVersion
from interlock.serving.bodies import BodyBudget, BodyRefused
from interlock.serving.model_metrics import METRICS_MEDIA_TYPE, ModelMetrics

JSON = "application/json"
AnswerBody = Callable[[bytes, str | None], tuple[int, str, bytes]]


class Endpoints:
    """Routes requests; predictions run on `threads` threads so that /ping and /metrics answer while they do."""

    def __init__(self, answer: AnswerBody, *, version: ModelVersion, mlflow_version: str, threads: int) -> None:
        self._answer = answer
        self._mlflow_version = mlflow_version.encode()
        self._metrics = ModelMetrics(version)
        self._bodies = BodyBudget()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prediction")
        # Names may hold any character, header values only some.
        self._stamp = [("x-interlock-model", quote(version.label, safe="/ @:+,()")), ("x-interlock-digest", version.digest)]
        self._json_headers = [("content-type", JSON), *self._stamp]
        self._pages = {"/ping": self._ping, "/health": self._ping, "/version": self._version, "/metrics": self._exposition}

    @property
    def inflight_count(self) -> int:
        """Requests to /invocations that have no answer yet."""
        return self._metrics.inflight_count

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answers one request."""
        if scope.path == "/invocations":
            if scope.method != "POST":
                return self._refuse_method(protocol, allowed="POST")
            return await self._invocations(scope, protocol)
        page = self._pages.get(scope.path)
        if page is None:
            return self._reply(protocol, 404, JSON, b'{"detail":"Not Found"}')
        if scope.method != "GET":
            return self._refuse_method(protocol, allowed="GET")
        return self._reply(protocol, 200, *page())

    async def _invocations(self, scope: Any, protocol: Any) -> None:
        started, status = time.monotonic(), 499  # 499: the client went away before it had an answer
        self._metrics.begin()
        try:
            answered = await self._answered(scope, protocol)
            status = answered[0]
            self._reply(protocol, *answered)
        finally:
            self._metrics.end(status=status, elapsed_seconds=time.monotonic() - started)

    async def _answered(self, scope: Any, protocol: Any) -> tuple[int, str, bytes]:
        try:
            body = await self._bodies.read(protocol, _announced_bytes(scope))
        except BodyRefused as refused:
            return refused.status, JSON, json.dumps({"error_code": refused.error_code, "message": refused.message}).encode()
        content_type = scope.headers.get("content-type")
        if content_type is None and "content-type" in scope.headers:
            content_type = ""  # bytes that are no text: a wrong type, not an absent one
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, body, content_type)
        finally:
            self._bodies.release(len(body))

    def _reply(self, protocol: Any, status: int, media_type: str, body: bytes) -> None:
        headers = self._json_headers if media_type == JSON else [("content-type", media_type), *self._stamp]
        protocol.response_bytes(status, headers, body)

    def _refuse_method(self, protocol: Any, *, allowed: str) -> None:
        protocol.response_bytes(405, [("allow", allowed), *self._json_headers], b'{"detail":"Method Not Allowed"}')

    def _ping(self) -> tuple[str, bytes]:
        # Nothing to find out: the server listens only after the model has loaded and answered its example.
        return JSON, b"\n"

    def _version(self) -> tuple[str, bytes]:
        return JSON, self._mlflow_version

    def _exposition(self) -> tuple[str, bytes]:
        return METRICS_MEDIA_TYPE, self._metrics.text()


def _announced_bytes(scope: Any) -> int | None:
    """Content-Length, or None if the body comes in chunks."""
    length = scope.headers.get("content-length") or ""
    return int(length) if length.isdigit() else None
