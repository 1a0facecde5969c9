"""Decision, gates and phases of a release, in the words of the report."""

from collections.abc import Sequence
from dataclasses import dataclass

from interlock.report.numerals import Record, count, duration, finite, kind_of, moment, parts_of, seconds_of, short, weight
from interlock.report.signals import LOOKS
from interlock.report.timeline import name_of, signals_of

TONES = {"Promoted": "good", "Held": "warn", "Rejected": "warn", "RolledBack": "bad", "Failed": "bad"}
GLYPHS = {"Promoted": "✓", "Held": "▲", "Rejected": "✕", "RolledBack": "↩", "Failed": "✕"}
OUTCOMES = {"PASS": ("good", "✓"), "INCONCLUSIVE": ("warn", "?"), "FAIL": ("bad", "✕")}
ENDINGS = frozenset({"decision", "failed"})


@dataclass(frozen=True, slots=True)
class Ending:
    """How the release ended: one word, its tone and glyph, and the sentence that says why."""

    word: str
    tone: str
    glyph: str
    reason: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class GateRow:
    """
    One measurement of a gate, with its bounds where it has some.

    `is_within`: proved to be; None when nothing was read; true for one that stands beside without a limit.
    """

    name: str
    value: str
    limit: str
    unit: str
    sample_count: str
    is_within: bool | None
    is_thin: bool


@dataclass(frozen=True, slots=True)
class GateStory:
    """One gate with its measurements."""

    name: str
    outcome: str
    tone: str
    glyph: str
    reason: str
    rows: tuple[GateRow, ...]


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase: share, how long it was to last and lasted, and the pairs judged in it."""

    name: str
    weight: str
    began: str
    planned: str
    lasted: str
    pair_count: str
    ticks: str


def tell_ending(records: Sequence[Record]) -> Ending:
    """The decision with the facts an on-call engineer asks for first. Without a decision: Failed, or under way."""
    intake, decision = first(records, "intake") or {}, next((r for r in reversed(records) if kind_of(r) in ENDINGS), None)
    word = str((decision or {}).get("decision", "Failed")) if decision else "Under way"
    facts = [
        ("Candidate", f"{intake.get('candidate', 'unknown')}"),
        ("Incumbent before", f"{intake.get('incumbent', 'unknown')}"),
        ("Profile", " ".join(str(intake.get(key) or "") for key in ("profile_name", "profile_digest")).strip() or "not recorded"),
        ("Began", moment(intake)),
        ("Decided", moment(decision)),
        ("Took", duration(_between(intake, decision))),
        *_halt_facts(records),
        *_rollback_facts(first(records, "rollback")),
    ]
    reason = str((decision or {}).get("reason") or "no reason was recorded")
    return Ending(word, TONES.get(word, "calm"), GLYPHS.get(word, "◑"), reason, tuple(facts))


def _halt_facts(records: Sequence[Record]) -> list[tuple[str, str]]:
    """How many requests it took until the halt, when there was one."""
    halted_after = next((i for i, record in enumerate(records) if kind_of(record) in LOOKS and record.get("outcome") == "HALT"), None)
    if halted_after is None:
        return []
    halt, until = records[halted_after], [record for record in records[: halted_after + 1] if kind_of(record) in LOOKS]
    total = max((pair_count(tick) for tick in until), default=0)
    shadow = max((pair_count(tick) for tick in until if finite(tick.get("weight_bps")) == 0), default=0)
    facts = [("Halted", f"{moment(halt)} by {halt.get('decided_by') or 'the judge'} in {halt.get('phase') or 'the final look'}")]
    return [*facts, ("Requests judged until the halt", f"{total:,} ({total - shadow:,} of them with users on the candidate)")]


def _rollback_facts(receipt: Record | None) -> list[tuple[str, str]]:
    if receipt is None:
        return []
    steps = parts_of(receipt.get("steps"))
    traffic = next((step for step in steps if step.get("step") == "traffic"), {})
    after, all_after = (duration(finite(part.get("elapsed_seconds"))) for part in (traffic, receipt))
    return [("Rollback", f"all traffic observed on the incumbent after {after}; everything after {all_after}")]


def tell_gates(records: Sequence[Record]) -> list[GateStory]:
    """Every gate that has a verdict, in the order they were judged."""
    return [_gate(record) for record in records if kind_of(record) == "gate"]


def _gate(record: Record) -> GateStory:
    outcome, name = str(record.get("outcome", "unknown")), str(record.get("gate", "unnamed"))
    tone, glyph = OUTCOMES.get(outcome, ("warn", "?"))
    reason = str(record.get("reason") or "").removeprefix(f"{name}: ")
    return GateStory(name, outcome, tone, glyph, reason, tuple(_measurement(m) for m in parts_of(record.get("measurements"))))


def _measurement(m: Record) -> GateRow:
    value, limit, better = finite(m.get("value")), finite(m.get("limit")), m.get("better")
    low, high = finite(m.get("low")), finite(m.get("high"))
    has_bounds = m.get("confidence_percent") is not None
    decisive = (low if better == "higher" else high) if has_bounds else value
    is_within = None if decisive is None else limit is None or (decisive >= limit if better == "higher" else decisive <= limit)
    number, wanted = finite(m.get("n")), finite(m.get("min_n"))
    is_thin = number is not None and wanted is not None and number < wanted
    samples = count(number) + (f" of {count(wanted)}" if is_thin else "")
    sign = "≥" if better == "higher" else "≤"
    limit_text = f"{sign} {short(limit)}" if limit is not None else short(None)
    value_text = f"{short(value)} [{short(low)}, {short(high)}]" if has_bounds else short(value)
    return GateRow(str(m.get("name", "unnamed")), value_text, limit_text, str(m.get("unit") or ""), samples, is_within, is_thin)


def tell_phases(records: Sequence[Record]) -> list[PhaseRow]:
    """Every phase that the candidate entered, with what was judged before the next one began."""
    starts = [i for i, record in enumerate(records) if kind_of(record) == "phase"]
    ends = [*starts[1:], len(records)][: len(starts)]
    ending = next((record for record in records if kind_of(record) in {"rollback", *ENDINGS}), None)
    rows, judged_before = [], 0
    for start, end in zip(starts, ends, strict=True):
        phase = records[start]
        ticks = [record for record in records[start:end] if kind_of(record) == "tick"]
        following = records[end] if end < len(records) else ending
        judged = max((pair_count(tick) for tick in ticks), default=judged_before)
        last_second = _between(phase, ticks[-1]) if ticks else None
        rows.append(
            PhaseRow(
                name=str(phase.get("phase", "unnamed")),
                weight=weight(phase.get("weight_bps")),
                began=moment(phase),
                planned=duration(finite(phase.get("bake_seconds"))),
                lasted=duration(last_second if last_second is not None else _between(phase, following)),
                pair_count=count(judged - judged_before),
                ticks=count(len(ticks)),
            )
        )
        judged_before = max(judged, judged_before)
    return rows


def pair_count(look: Record) -> int:
    """Pairs judged so far at a look: those of the divergence, else of the signal with most; 0 when nothing was judged."""
    signals = signals_of(look)
    counts = {name_of(signal): int(finite(signal.get("sample_count")) or 0) for signal in signals}
    return counts.get("divergence") or max(counts.values(), default=0)


def first(records: Sequence[Record], kind: str) -> Record | None:
    """The first record of a kind."""
    return next((record for record in records if kind_of(record) == kind), None)


def _between(earlier: Record | None, later: Record | None) -> float | None:
    began, ended = seconds_of(earlier), seconds_of(later)
    return None if began is None or ended is None or later is None else max(0.0, ended - began)
