"""Release profiles are read strictly: every trap of YAML and every number that decides nothing is refused in one sentence."""

import re
from pathlib import Path

import pytest
import yaml

from interlock.control.comparison import comparison
from interlock.control.policy import judge_policy
from interlock.errors import PolicyError
from interlock.judge.comparators import Difference, Layout
from interlock.model.plane import CandidateLimits
from interlock.profile.reader import list_profiles, parse_profile, profiles_directory, read_profile
from tests.worlds import PROFILES

GOOD = (PROFILES / "short.yaml").read_text(encoding="utf-8")
COLUMN = next(line for line in GOOD.splitlines(keepends=True) if "{name: x, kind: number" in line)


def refusal(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        parse_profile(text, source="p.yaml")
    message = str(caught.value)
    assert message.startswith("profile p.yaml: ")
    assert "\n" not in message
    return message


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def test_a_good_profile_is_read_with_the_digest_of_its_text() -> None:
    loaded = parse_profile(GOOD, source="p.yaml")
    assert loaded.profile.name == "short"
    assert loaded.text == GOOD
    assert re.fullmatch("sha256:[0-9a-f]{64}", loaded.digest)
    assert parse_profile(GOOD + "# a comment\n", source="p.yaml").digest != loaded.digest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        pytest.param("beta: 0.05", "beta: yes", ["judge.beta", "yes"], id="yes is no number"),
        pytest.param("beta: 0.05", "beta: true", ["judge.beta"], id="true is no number"),
        pytest.param("beta: 0.05", "beta: '1.0'", ["judge.beta", "1.0"], id="a number in quotes is text"),
        pytest.param("beta: 0.05", "beta: .nan", ["judge.beta is nan", "finite"], id="nan"),
        pytest.param("beta: 0.05", "beta: .NaN", ["judge.beta is nan", "finite"], id="nan in capitals"),
        pytest.param("beta: 0.05", "beta: .inf", ["judge.beta is inf", "finite"], id="infinity"),
        pytest.param("beta: 0.05", "beta: 1e400", ["judge.beta is inf", "finite"], id="a number too large for a float"),
        pytest.param("beta: 0.05", "beta: ", ["judge.beta"], id="a number left out"),
        pytest.param("beta: 0.05", "beta: null", ["judge.beta"], id="null is no number"),
        pytest.param("beta: 0.05", "beta: [0.05]", ["judge.beta"], id="a list is no number"),
        pytest.param("beta: 0.05", "beta: 0.5", ["judge.beta", "0.2"], id="a beta that would pass half of the bad ones"),
        pytest.param("beta: 0.05", "beta: 0", ["judge.beta"], id="a beta of nothing"),
        pytest.param("lease_seconds: 10.0", "lease_seconds: 5:00", ["canary.lease_seconds", "5:00"], id="5:00 is not 300"),
        pytest.param("lease_seconds: 10.0", "lease_seconds: 1_0", ["canary.lease_seconds"], id="an underscore in a number"),
        pytest.param("lease_seconds: 10.0", "lease_seconds: 3600", ["canary.lease_seconds", "60"], id="a lease of an hour"),
        pytest.param("thread_count: 1", "thread_count: 0x10", ["thread_count"], id="a hexadecimal number"),
        pytest.param("thread_count: 1", "thread_count: 010", ["thread_count"], id="an octal number"),
        pytest.param("thread_count: 1", "thread_count: 1.0", ["thread_count"], id="a count with a fraction"),
        pytest.param("thread_count: 1", f"thread_count: {'9' * 5000}", ["p.yaml"], id="a number of five thousand digits"),
        pytest.param(
            "name: roc_auc, better: higher, limit: 0.6, max",
            "name: roc_auc, better: smaller, limit: 0.6, max",
            ["better", "smaller"],
            id="a direction misspelt",
        ),
        pytest.param(
            "name: roc_auc, better: higher, limit: 0.6, max",
            "name: roc_auc, better: lower, limit: 0.6, max",
            ["roc_auc", "higher"],
            id="a direction that does not fit the metric",
        ),
        pytest.param(
            "name: roc_auc, better: higher, limit: 0.6, max", "name: auc, better: higher, limit: 0.6, max", ["auc"], id="an unknown metric"
        ),
        pytest.param("weight_bps: 5000", "weight_bps: 1000", ["climb", "[1000, 1000]"], id="weights that do not climb"),
        pytest.param("weight_bps: 5000", "weight_bps: 500", ["climb", "[1000, 500]"], id="weights that fall"),
        pytest.param("weight_bps: 5000", "weight_bps: 10000", ["weight_bps", "10000"], id="all traffic is no step"),
        pytest.param("weight_bps: 1000", "weight_bps: 0", ["weight_bps"], id="no traffic is no step"),
        pytest.param("divergence: {tolerance: 0.2, weight: 0.35}", "divergence: {tolerance: 0.2, weight: 0.3}", ["0.95"], id="weights sum"),
        pytest.param(
            "segments: []", "segments: [{name: ' vip ', tolerance: 0.1, weight: 0.0}]", ["never match"], id="a header has no ends of space"
        ),
        pytest.param(
            "segments: []", f"segments: [{{name: {'é' * 40}, tolerance: 0.1, weight: 0.0}}]", ["never match"], id="a segment of 80 bytes"
        ),
        pytest.param(
            "segments: []",
            f"segments: [{', '.join(['{name: a, tolerance: 0.1, weight: 0.0}'] * 2)}]",
            ["more than once"],
            id="a segment named twice",
        ),
        pytest.param("bias: null", "bias: {tolerance: 0.1, weight: 0.1}", ["weights"], id="a bias on top of all weights"),
        pytest.param("unit: request", "unit: customer", ["unit", "customer"], id="an unknown unit"),
        pytest.param(COLUMN, COLUMN * 2, ["column x", "more than once"], id="a column named twice"),
        pytest.param(f"columns:\n{COLUMN}", "columns: []\n", ["columns"], id="no column"),
        pytest.param(
            "drift_distance: 0.5", "drift_distance: 3.0", ["column x", "max_distance 2", "drift_distance 3"], id="inverted distances"
        ),
        pytest.param("maximum: 1.0", "maximum: 0.0", ["column x", "minimum 0", "maximum 0"], id="a range of nothing"),
        pytest.param("method: wasserstein, drift", "method: ks, drift", ["method"], id="a p-value is no distance"),
        pytest.param("sample_row_count: 1000", "sample_row_count: 10", ["sample_row_count 10"], id="a drift gate no data could satisfy"),
        pytest.param('data_sha256: "55', 'data_sha256: "xx', ["data_sha256"], id="a digest that is none"),
        pytest.param("batch_row_count: 10", "batch_row_count: 30", ["batch_row_count 30"], id="rows that always meet the same others"),
        pytest.param("name: calibration_error", "name: brier", ["calibration_error"], id="probabilities whose calibration nobody limits"),
        pytest.param("max_code_severity: low", "max_code_severity: high", ["max_code_severity"], id="code that may do anything"),
        pytest.param("schema_version: release-profile/v1", "schema_version: release-profile/v2", ["schema_version"], id="another schema"),
        pytest.param("name: short", "name: ../x", ["name"], id="a name that is a path"),
        pytest.param("alpha: 0.01", "alpha: 0.01\n  alhpa: 0.02", ["judge.alhpa"], id="an unknown key is named"),
        pytest.param("alpha: 0.01", "alhpa: 0.01", ["judge.alhpa", "and 1 more"], id="a misspelt key is named before the missing one"),
        pytest.param("name: short", "name: short\nname: short", ["'name'", "twice"], id="a key given twice"),
        pytest.param("alpha: 0.01", "alpha: 0.01\n  alpha: 0.1", ["'alpha'", "twice", "line"], id="a nested key given twice"),
        pytest.param("slack_ms: 10.0,", "slack_ms: 10.0, slack_ms: 99.0,", ["'slack_ms'", "twice"], id="twice in one line"),
        pytest.param("alpha: 0.01", "<<: {alpha: 0.1}\n  alpha: 0.01", ["<<"], id="a merge key is unknown"),
        pytest.param("description: For", "description: !!python/object/apply:os.system [id] # For", ["python"], id="a Python tag"),
        pytest.param("description: For", "? [a, b]\n: 1\ndescription: For", ["p.yaml"], id="a list as a key"),
        pytest.param("error_percent: 50.0", "error_percent: .nan", ["limits.error_percent", "finite"], id="a limit nothing exceeds"),
        pytest.param("error_percent: 50.0", "error_percent: 100.0", ["limits.error_percent", "100"], id="a limit nothing can exceed"),
        pytest.param("error_percent: 50.0", "error_percent: 20.0", ["limits.error_percent 20", "judge.slo"], id="the judge's own errors"),
        pytest.param("p99_ms: 1900.0", "p99_ms: 1000.0", ["limits.p99_ms 1000", "max_p99_ms 1000"], id="the judge's own latency"),
        pytest.param(
            "resident_mib: 2048.0", "resident_mib: 900.0", ["limits.resident_mib", "gates.memory"], id="the memory gate's own limit"
        ),
        pytest.param("resident_mib: 2048.0", "resident_mib: .inf", ["limits.resident_mib", "finite"], id="memory without a limit"),
        pytest.param("min_sample_count: 50      ", "min_sample_count: 0", ["limits.min_sample_count"], id="a limit broken by no answer"),
        pytest.param("  p99_ms: 1900.0 ", "  # p99_ms: 1900.0 ", ["limits.p99_ms", "required"], id="a limit left out"),
        pytest.param("request_count: 370", "request_count: 367", ["gates.latency", "367", "368"], id="too few requests for a p99"),
        pytest.param("beta: 0.05", "beta: 0.01", ["gates.latency", "0.01", "528"], id="too few requests for a smaller error"),
        pytest.param("recovery_time_objective_seconds: 300.0", "recovery_time_objective_seconds: 301", ["300"], id="an objective too long"),
        pytest.param("\nrecovery_time_objective_seconds: 300.0", "", ["recovery_time_objective_seconds"], id="no objective at all"),
    ],
)
def test_a_trap_is_refused_and_named(old: str, new: str, words: list[str]) -> None:
    message = refusal(changed(old, new))
    assert all(word in message for word in words), message


def test_the_plane_takes_the_limits_as_the_profile_has_them() -> None:
    assert parse_profile(GOOD, source="p.yaml").profile.limits.for_plane() == CandidateLimits(50.0, 1900.0, 50, 2048.0)


OUTPUT = "output: {type: probability, comparator: total_variation}"
COSTS = "costs: [[0.0, 1.0], [2.0, 0.0]]"


@pytest.mark.parametrize(
    "section",
    [
        "{type: label, comparator: differs}",
        f"{{type: label, comparator: cost_matrix, labels: [approve, decline], {COSTS}}}",
        f"{{type: label, comparator: cost_matrix, labels: [0, 1], {COSTS}}}",
        "{type: probability, comparator: total_variation}",
        "{type: regression, comparator: absolute, scale_units: 30.0}",
        "{type: regression, comparator: exceeds, tolerance_units: 5.0, scale_units: 30.0}",
        "{type: ranking, comparator: rank_biased_overlap, persistence: 0.9, depth: 20}",
        "{type: ranking, comparator: overlap, depth: 10}",
        "{type: embedding, comparator: cosine}",
        "{type: embedding, comparator: neighbours}",
        "{type: text, comparator: token_f1}",
        "{type: json, comparator: fields, required_fields: [{name: decision, holds: string}]}",
        "{type: json, comparator: fields, required_fields: []}",
    ],
)
def test_every_output_type_names_its_comparator_and_gives_a_comparison(section: str) -> None:
    text = changed(OUTPUT, f"output: {section}")
    if "regression" in section:
        text = text.replace("bias: null", "bias: {tolerance: 0.1, weight: 0.05}").replace(
            "tolerance: 0.2, weight: 0.35", "tolerance: 0.2, weight: 0.3"
        )
    loaded = parse_profile(text, source="p.yaml")
    compare, good = comparison(loaded.profile.output, Layout()), '{"predictions": ["a"]}'
    assert compare(good, None) in (None, Difference(1.0))
    is_binary = judge_policy(loaded.profile).divergence_is_binary
    assert is_binary == any(word in section for word in ("comparator: differs", "exceeds"))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        pytest.param("", ["output", "an object"], id="nothing"),
        pytest.param("probability", ["output", "an object"], id="a word instead of a section"),
        pytest.param("{type: probability}", ["output", "comparator"], id="no comparator: none is chosen for anybody"),
        pytest.param("{type: picture, comparator: cosine}", ["output.cosine.type", "picture", "embedding"], id="an unknown type"),
        pytest.param(
            "{type: probability, comparator: cosine}", ["output.cosine.type", "'embedding'", "probability"], id="it does not fit the type"
        ),
        pytest.param("{type: label, comparator: diffres}", ["diffres", "differs", "cost_matrix"], id="a comparator misspelt"),
        pytest.param(
            "{type: probability, comparator: total_variation, scale_units: 1.0}", ["scale_units", "not permitted"], id="another's parameter"
        ),
        pytest.param("{type: regression, comparator: absolute}", ["scale_units", "required"], id="no scale"),
        pytest.param("{type: regression, comparator: absolute, scale_units: 0.0}", ["scale_units", "greater"], id="a scale of nothing"),
        pytest.param("{type: regression, comparator: absolute, scale_units: .inf}", ["scale_units", "finite"], id="an infinite scale"),
        pytest.param("{type: regression, comparator: exceeds, scale_units: 1.0}", ["tolerance_units"], id="no tolerance"),
        pytest.param("{type: ranking, comparator: rank_biased_overlap, persistence: 1.0, depth: 9}", ["persistence"], id="p of 1"),
        pytest.param("{type: ranking, comparator: overlap, depth: 0}", ["depth"], id="a depth of nothing"),
        pytest.param("{type: ranking, comparator: overlap, depth: 2.0}", ["depth"], id="a depth with a fraction"),
        pytest.param(f"{{type: label, comparator: cost_matrix, labels: [a, a], {COSTS}}}", ["more than once"], id="a label twice"),
        pytest.param(f"{{type: label, comparator: cost_matrix, labels: [a, b, c], {COSTS}}}", ["3 rows of 3"], id="costs not square"),
        pytest.param(
            "{type: label, comparator: cost_matrix, labels: [a, b], costs: [[1.0, 1.0], [1.0, 0.0]]}", ["same label"], id="a diagonal cost"
        ),
        pytest.param("{type: label, comparator: cost_matrix, labels: [a, b], costs: [[0.0, 0.0], [0.0, 0.0]]}", ["nothing"], id="no cost"),
        pytest.param(
            "{type: label, comparator: cost_matrix, labels: [a, b], costs: [[0.0, -1.0], [1.0, 0.0]]}", ["greater"], id="a negative cost"
        ),
        pytest.param(
            "{type: json, comparator: fields, required_fields: [{name: a, holds: text}]}", ["holds", "text"], id="unknown field type"
        ),
        pytest.param(
            "{type: json, comparator: fields, required_fields: [{name: a, holds: string}, {name: a, holds: array}]}",
            ["a is named more than once"],
            id="a required field twice",
        ),
    ],
)
def test_a_comparator_that_does_not_fit_is_refused_in_one_sentence(section: str, words: list[str]) -> None:
    message = refusal(changed(OUTPUT, f"output: {section}"))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty file"),
        pytest.param("# only a comment\n", id="only a comment"),
        pytest.param("- a\n- b\n", id="a list"),
        pytest.param("just text", id="text"),
        pytest.param("{", id="broken YAML"),
        pytest.param("a: b: c", id="two colons"),
        pytest.param("\x00\x01\x02", id="control characters"),
        pytest.param(GOOD + "---\n" + GOOD, id="two documents"),
        pytest.param("[" * 20_000, id="nested without end"),
        pytest.param("{a: " * 5_000 + "1" + "}" * 5_000, id="mappings in mappings"),
    ],
)
def test_what_is_no_profile_is_refused(text: str) -> None:
    refusal(text)


def test_aliases_of_aliases_are_refused_before_they_grow() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    assert "alias" in refusal(bomb)
    assert "alias" in refusal(changed("alpha: 0.01", "alpha: &a 0.01").replace("beta: 0.05", "beta: *a"))


def test_every_gate_is_required() -> None:
    for gate in ("evaluation", "latency", "memory", "disagreement", "drift"):
        assert gate in refusal(re.sub(rf"\n  {gate}:", f"\n  not_{gate}:", GOOD, count=1))
    assert "jugde" in refusal(GOOD.replace("judge:", "jugde:"))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(tmp_path))
    (tmp_path / "short.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "standard.yaml").write_text(GOOD, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", ["unknown", "../x", "short.yaml", "/etc/passwd", "", "SHORT", "short\n", "a" * 300, "short\0", "."])
def test_a_name_that_is_none_is_refused_with_the_names_there_are(directory: Path, name: str) -> None:
    (directory.parent / "x.yaml").write_text(GOOD, encoding="utf-8")
    with pytest.raises(PolicyError, match="known: short, standard"):
        read_profile(name)


def test_profiles_are_found_where_the_environment_says(directory: Path) -> None:
    assert read_profile("short").profile.name == "short"
    assert list_profiles() == ["short", "standard"]
    assert profiles_directory() == directory


def test_a_directory_without_profiles_says_that_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_PROFILES_DIR", str(tmp_path / "gone"))
    with pytest.raises(PolicyError, match="known: none"):
        read_profile("short")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage\x80", bytes(range(256)) * 50], ids=["a wrong encoding", "binary garbage"])
def test_bytes_that_are_no_text_are_refused(directory: Path, content: bytes) -> None:
    (directory / "short.yaml").write_bytes(content)
    with pytest.raises(PolicyError, match="cannot be read"):
        read_profile("short")


def test_a_profile_that_became_a_directory_is_no_profile(directory: Path) -> None:
    (directory / "short.yaml").unlink()
    (directory / "short.yaml").mkdir()
    with pytest.raises(PolicyError, match="no release profile 'short'"):
        read_profile("short")


@pytest.mark.parametrize("gate", ["artifact", "evaluation", "parity", "latency", "memory", "disagreement", "drift"])
def test_f24_a_gate_that_is_left_out_is_refused_and_not_skipped(gate: str) -> None:
    whole = yaml.safe_load(GOOD)
    whole["gates"].pop(gate)
    with pytest.raises(PolicyError, match=f"gates.{gate}"):
        parse_profile(yaml.safe_dump(whole), source="p.yaml")
    whole["gates"][gate] = None
    with pytest.raises(PolicyError, match=f"gates.{gate}"):
        parse_profile(yaml.safe_dump(whole), source="p.yaml")
