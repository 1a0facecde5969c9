"""The files that were judged are still those on disk: asked before the candidate's first share of users, and before it is promoted."""

import math

from interlock.control.session import ReleaseSession
from interlock.errors import ArtifactError, Tampered

HOLD_SECONDS = 2.0  # at most; a lease has room for four


def require_unchanged(session: ReleaseSession, *, before: str) -> None:
    """
    Read all the candidate's files again. The plane is held meanwhile; nothing that was known of a file before is believed.

    It is not the candidate's fault when they are not: what research has logged may be as good as before.

    Raises:
        Tampered: they are not those of the intake, or cannot be read any more.
    """
    services, candidate = session.services, session.release.candidate
    lease_seconds, held_at = session.profile.canary.lease_seconds, [-math.inf]

    def hold() -> None:
        if services.clock.monotonic() - held_at[0] > min(HOLD_SECONDS, lease_seconds / 4):
            services.traffic.renew(lease_seconds=lease_seconds, token=session.release.token)
            held_at[0] = services.clock.monotonic()

    hold()
    try:
        found = services.files.read_digest(candidate, between=hold)
    except ArtifactError as error:
        raise Tampered(f"the files of {candidate.label} cannot be read before {before}: {error}") from error
    session.record("files", candidate=candidate.label, before=before, digest=found, is_unchanged=found == candidate.digest)
    if found != candidate.digest:
        raise Tampered(
            f"the files of {candidate.label} in {session.candidate_directory} have {found} before {before}, judged was {candidate.digest}: "
            f"they were changed since; find out by whom, delete that directory, and release the version again"
        )
