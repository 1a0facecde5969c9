"""At a gate's edge an exception is a reason, never a PASS, and never carries a secret."""

import pytest

from interlock.control.gates.edge import judge_required, judged
from interlock.errors import EvidenceError, ServiceRefused
from interlock.model.redaction import redacted
from interlock.model.verdict import Measurement, Outcome, Verdict


def raising(error: BaseException) -> Verdict:
    def judge() -> Verdict:
        raise error

    return judged("drift", judge)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(EvidenceError("no rows"), "drift: no rows", id="ours, in its own words"),
        pytest.param(ServiceRefused("no file"), "drift: no file", id="a refusal"),
        pytest.param(
            ZeroDivisionError("division by zero"), "drift: it could not be judged, ZeroDivisionError: division by zero", id="a bug"
        ),
        pytest.param(MemoryError(), "drift: it could not be judged, MemoryError: MemoryError", id="without a message"),
        pytest.param(ValueError("two\nlines"), "drift: it could not be judged, ValueError: two lines", id="two lines become one"),
    ],
)
def test_an_exception_becomes_inconclusive_with_its_reason(error: Exception, reason: str) -> None:
    verdict = raising(error)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, reason)


def test_who_interrupts_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt):
        raising(KeyboardInterrupt())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("cannot reach https://user:hunter2@mlflow/api", id="password in an address"),
        pytest.param("password=hunter2 refused", id="password in a query"),
        pytest.param('{"api_key": "hunter2"}', id="key in JSON"),
        pytest.param("Authorization: Bearer hunter2hunter2", id="bearer token"),
        pytest.param("GET /x?X-Amz-Signature=hunter2&a=b", id="signed address"),
        pytest.param("AWS_SECRET_ACCESS_KEY=hunter2", id="environment variable"),
        pytest.param("x" * 295 + " token=hunter2", id="across the cut"),
    ],
)
def test_secrets_do_not_reach_a_reason(text: str) -> None:
    assert "hunter2" not in raising(RuntimeError(text)).reason
    assert "hunter2" not in raising(EvidenceError(text)).reason


def test_ordinary_sentences_stay_as_they_are() -> None:
    text = "the data has no column tokens_per_request, 3 of 10 rows: name it in the release profile"
    assert redacted(text) == text


def test_what_is_not_required_is_shown_and_decides_nothing() -> None:
    good = Measurement("share", 0.1, 0.3, "lower", "", 10, 1)
    beyond = Measurement("distance of x", 9.0, 0.5, "lower", "", 10, 1)
    verdict = judge_required("drift", [good, beyond], required=["share"], remarks=["x moved"])
    assert verdict.outcome is Outcome.PASS
    assert verdict.measurements == (good, beyond)
    assert verdict.reason == "drift: share 0.1 <= 0.3 (n=10); x moved"
    assert judge_required("drift", [good, beyond], required=[]).outcome is Outcome.INCONCLUSIVE
    assert judge_required("drift", [good, beyond], required=["absent"]).outcome is Outcome.INCONCLUSIVE
