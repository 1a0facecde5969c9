"""Every way in which a neighbour can fail to answer has one name, chosen by who must act."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from interlock.adapters.http_service import TRANSIENT_STATUS, HttpService
from interlock.errors import ServiceRefused, ServiceUnavailable


def subclasses(kind: type[httpx.HTTPError]) -> Iterator[type[httpx.HTTPError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def raised(kind: type[httpx.HTTPError]) -> httpx.HTTPError:
    if issubclass(kind, httpx.HTTPStatusError):
        request = httpx.Request("GET", "http://x")
        return kind("broken", request=request, response=httpx.Response(500, request=request))
    return kind("broken")


def service(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> HttpService:
    client = httpx.Client
    with monkeypatch.context() as patch:
        patch.setattr(httpx, "Client", lambda **kw: client(**kw, transport=httpx.MockTransport(answer)))
        return HttpService("the registry", "http://127.0.0.1:1", timeout_seconds=1.0)


KINDS = {kind.__name__: kind for kind in subclasses(httpx.HTTPError)}


@pytest.mark.parametrize("kind", [pytest.param(KINDS[name], id=name) for name in sorted(KINDS)])
def test_whatever_httpx_raises_is_unavailable(monkeypatch: pytest.MonkeyPatch, kind: type[httpx.HTTPError]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise raised(kind)

    with pytest.raises(ServiceUnavailable, match=rf"the registry does not answer GET /x \({kind.__name__}\): is it up\?") as caught:
        service(monkeypatch, fail).get("/x")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("status", sorted({301, 302, 304, 308, 400, 401, 403, 404, 409, 410, 418, 422, 501, 505, *TRANSIENT_STATUS}))
def test_an_answer_that_is_no_has_the_class_of_who_must_act(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    answering = service(monkeypatch, lambda _: httpx.Response(status, json={"message": "says\nno"}))
    kind = ServiceUnavailable if status in TRANSIENT_STATUS else ServiceRefused
    calls: list[Callable[[], object]] = [lambda: answering.get("/x"), lambda: answering.post("/x", {})]
    for call in calls:
        with pytest.raises(kind, match=str(status)) as caught:
            call()
        assert type(caught.value) is kind
        assert "says no" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"<html>It works!</html>", id="a page of another service"),
        pytest.param(b'{"cut', id="JSON that was cut"),
        pytest.param(b"\xff\xfe\x00", id="bytes that are no text"),
    ],
)
def test_t06_an_answer_that_is_no_json_is_unavailable(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    with pytest.raises(ServiceUnavailable, match="not JSON"):
        service(monkeypatch, lambda _: httpx.Response(200, content=content)).get("/x")


@pytest.mark.parametrize("body", [b"not json", b"[1]", b'"text"', b"null", b'{"detail": {"a": 1}}', b"", b"x" * 5000])
def test_any_body_of_a_refusal_becomes_one_short_sentence(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    with pytest.raises(ServiceRefused) as caught:
        service(monkeypatch, lambda _: httpx.Response(404, content=body)).get("/x")
    assert len(str(caught.value)) < 400


def test_a_good_answer_is_decoded_and_an_empty_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert service(monkeypatch, lambda _: httpx.Response(200, json={"a": 1})).get("/x", n=1) == {"a": 1}
    assert service(monkeypatch, lambda _: httpx.Response(204)).post("/x", {}) is None


def test_a_proxy_of_the_environment_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert not HttpService("x", "http://127.0.0.1:1", timeout_seconds=1.0)._client._mounts
