"""
The control API and the live page, on one loopback port.

Pages are read-only and open; every call that changes the plane needs the secret of the state directory. Whoever holds that secret is
trusted; the token of the release that holds the plane keeps other releases, late or doubled, from moving its traffic.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from interlock.errors import ConcurrencyError, ReleaseError, ServiceUnavailable
from interlock.model.plane import CandidateLimits
from interlock.model.release import ModelVersion
from interlock.plane.controller import PlaneController
from interlock.plane.live import LivePage
from interlock.report.content_policy import CONTENT_SECURITY_POLICY

Call = Callable[[dict[str, Any]], Any]
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'",  # one file, no outside asset
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

# A report holds text of models and data: whatever that says, nothing runs and nothing is loaded. It says the same in its own head; its
# picture cannot.
REPORT_HEADERS = {
    "content-security-policy": f"{CONTENT_SECURITY_POLICY}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

# Evidently draws its page with its own scripts, from what users have sent. So they run as nobody: in a sandbox of no origin, which reaches
# no network, this plane's calls among it.
DRIFT_HEADERS = {
    **REPORT_HEADERS,
    "content-security-policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob: data:; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


def build_api(controller: PlaneController, live: LivePage, *, token: str) -> Starlette:
    """The application. `token` is the secret that changing calls must carry as a bearer token."""
    changing: dict[str, Call] = {
        "adopt": lambda b: asdict(controller.adopt(_version(b), server=str(b["server"]), thread_count=int(b["thread_count"]))),
        "begin": lambda b: {
            "token": controller.begin(str(b["release_id"]), lease_seconds=float(b["lease_seconds"]), above=int(b.get("above", 0)))
        },
        "load": lambda b: controller.load_candidate(
            _version(b),
            server=str(b["server"]),
            thread_count=int(b["thread_count"]),
            limits=CandidateLimits(**b["limits"]),
            token=int(b["token"]),
        ),
        "mirroring": lambda b: controller.set_mirroring(enabled=b["enabled"] is True, token=int(b["token"])),
        "weight": lambda b: controller.set_weight(int(b["weight_bps"]), lease_seconds=float(b["lease_seconds"]), token=int(b["token"])),
        "renew": lambda b: controller.renew(lease_seconds=float(b["lease_seconds"]), token=int(b["token"])),
        "promote": lambda b: controller.promote(token=int(b["token"])),
        "restore": lambda b: controller.restore_incumbent(
            reason=str(b["reason"]), token=None if b.get("token") is None else int(b["token"])
        ),
        "end": lambda b: controller.end(token=None if b["token"] is None else int(b["token"])),
    }
    reading: dict[str, Callable[[], Any]] = {
        "state": lambda: asdict(controller.observe()),
        "candidate-failure": lambda: {"failure": controller.candidate_failure()},
        "capture-counts": lambda: asdict(controller.capture_counts()),
        "live": live.snapshot,
    }
    routes = [Route(f"/api/{name}", _changing(call, token), methods=["POST"]) for name, call in changing.items()]
    routes += [Route(f"/api/{name}", _reading(read)) for name, read in reading.items()]
    routes += [Route("/", _page), Route("/ping", _ping)]
    routes += [Route("/releases/{release_id}/e-values.svg", _chart(live)), Route("/releases/{release_id}/report.html", _report(live))]
    routes += [Route("/releases/{release_id}/drift.html", _drift_page(live))]
    return Starlette(routes=routes)


def _changing(call: Call, token: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if not secrets.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {token}".encode()):
            return JSONResponse({"error": "ServiceRefused", "message": "this call needs the secret in control.token"}, status_code=401)
        try:
            body = await request.json()
            return JSONResponse(await run_in_threadpool(call, body))
        except ReleaseError as error:
            return _refusal(error)
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
            return JSONResponse({"error": "ServiceRefused", "message": f"the request body is not usable: {error!r}"}, status_code=400)

    return endpoint


def _reading(read: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        del request
        try:
            return JSONResponse(await run_in_threadpool(read), headers={"cache-control": "no-store"})
        except ReleaseError as error:
            return _refusal(error)

    return endpoint


def _chart(live: LivePage) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        svg = await run_in_threadpool(live.chart, request.path_params["release_id"])
        return Response(svg, media_type="image/svg+xml", headers=REPORT_HEADERS) if svg else Response(status_code=404)

    return endpoint


def _report(live: LivePage) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        page = await run_in_threadpool(live.report, request.path_params["release_id"])
        return HTMLResponse(page, headers=REPORT_HEADERS) if page else Response(status_code=404)

    return endpoint


def _drift_page(live: LivePage) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        page = await run_in_threadpool(live.drift_page, request.path_params["release_id"])
        return HTMLResponse(page, headers=DRIFT_HEADERS) if page else Response(status_code=404)

    return endpoint


async def _page(request: Request) -> Response:
    del request
    return HTMLResponse((files("interlock.plane") / "page.html").read_text(encoding="utf-8"), headers=SECURITY_HEADERS)


async def _ping(request: Request) -> Response:
    del request
    return Response(status_code=200)


def _refusal(error: ReleaseError) -> JSONResponse:
    """The exception by its class name. 503 is for what may heal by itself: a client takes that for ServiceUnavailable."""
    status = 409 if isinstance(error, ConcurrencyError) else 503 if isinstance(error, ServiceUnavailable) else 422
    return JSONResponse({"error": type(error).__name__, "message": str(error)}, status_code=status)


def _version(body: dict[str, Any]) -> ModelVersion:
    return ModelVersion(name=str(body["version"]["name"]), version=str(body["version"]["version"]), digest=str(body["version"]["digest"]))
