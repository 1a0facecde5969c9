"""Opening a release: what must hold before a plane is reserved for it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from interlock.control.session import new_release_id, open_session
from interlock.errors import PolicyError, ServiceUnavailable
from interlock.model.plane import PlaneState
from interlock.model.release import ModelVersion
from tests.worlds import World, read_test_profile


def test_law_2_a_profile_that_the_plane_was_not_started_with_releases_nothing() -> None:
    world = World()
    services = replace(world.services(), allowed_profiles=("standard",))
    with pytest.raises(PolicyError, match="releases under standard, not under short"):
        open_session(services, read_test_profile(), model_name="late", version="2")
    assert world.traffic.token == 0, "nothing may be reserved"


def test_two_releases_of_one_version_in_one_second_have_two_ids() -> None:
    version = ModelVersion("late", "2", "sha256:2")
    moments = [datetime(2026, 1, 1, 0, 0, 0, micro, tzinfo=UTC) for micro in (1, 2)]
    assert len({new_release_id(version, moment) for moment in moments}) == 2


def test_a_plane_that_hiccups_while_a_release_opens_is_not_left_reserved() -> None:
    world = World()
    services, real = world.services(), world.traffic.observe

    def hiccup() -> PlaneState:
        raise ServiceUnavailable("the plane does not answer")

    world.traffic.observe = hiccup  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailable):
        open_session(services, read_test_profile(), model_name="late", version="2")
    assert world.traffic.release_id is None
    world.traffic.observe = real  # type: ignore[method-assign]
    began = world.clock.monotonic()
    assert open_session(services, read_test_profile(), model_name="late", version="2").release.token == 1
    assert world.clock.monotonic() - began < 1, "nobody was waited for"
