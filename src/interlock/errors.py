"""
Every exception Interlock raises, grouped by who must act.

    ReleaseError
    + PolicyError              the release profile is wrong        -> fix the YAML; never retry
    + StateError               the state directory cannot be used  -> free it, or choose another
    + EvidenceError            absent, stale, ambiguous            -> INCONCLUSIVE; never promote
      - NoSamples              too few readings to say anything
      - Tampered               what was judged is not what is here  -> find out who changed it
    + ServiceError             a dependency misbehaved
      - ServiceUnavailable     transient                           -> the only class Prefect retries
      - ServiceRefused         not found, conflict, bad request    -> never retry; a person
    + ArtifactError            the model version cannot be used    -> research mends the model version
    + ConcurrencyError         somebody else moved it first        -> re-read, re-plan
    + TrafficError             observed split is not the asked split
      - TrafficNotConverged    not yet                             -> poll, then roll back
      - RollbackFailed         the incumbent is not serving        -> page; carries numbers

A message says what was observed, what was wanted and what to do; it never carries a secret.
Exceptions travel through Prefect states by pickle: one positional message, no keyword-only arguments.
"""


class ReleaseError(Exception):
    """Root of everything Interlock raises on purpose."""


class PolicyError(ReleaseError):
    """The release profile is wrong: fix the YAML, never retry."""


class StateError(ReleaseError):
    """The state directory is in use, full or read-only."""


class EvidenceError(ReleaseError):
    """Evidence is absent, stale or ambiguous: INCONCLUSIVE."""


class NoSamples(EvidenceError):
    """Too few readings to say anything."""


class Tampered(EvidenceError):
    """What was judged is not what is here now."""


class ServiceError(ReleaseError):
    """A dependency misbehaved."""


class ServiceUnavailable(ServiceError):
    """A dependency is down or slow; the same call may succeed later."""


class ServiceRefused(ServiceError):
    """A dependency answered, and the answer is no; the same call will fail again."""


class ArtifactError(ReleaseError):
    """The model version cannot be used: corrupt, changed since intake, or without a signature."""


class ConcurrencyError(ReleaseError):
    """Somebody else moved it first."""


class TrafficError(ReleaseError):
    """The observed traffic split is not the split that was asked for."""


class TrafficNotConverged(TrafficError):
    """The plane has not (yet) taken over the split that was asked for."""


class RollbackFailed(TrafficError):
    """The incumbent was not observed to serve all traffic within the time allowed: page the on-call."""
