"""What the environment tells an instance and an edge, and how they say that they cannot use it."""

from __future__ import annotations

import msgspec
import pytest

from app.settings import Settings
from app.settings import SettingsError as ControlSettingsError
from regions.edge.settings import EdgeSettings, SettingsError

EDGE = {
    "VOXPLANE_REGION": "us-east",
    "VOXPLANE_EDGE_NAME": "edge-1",
    "VOXPLANE_CONTROL_URLS": "http://one, http://two/",
}
CONTROL = {"DATABASE_URL": "postgresql://user@host/db"}


def test_an_edge_is_told_where_the_control_plane_is() -> None:
    settings = EdgeSettings.from_env(EDGE)
    assert settings.control_urls == ("http://one", "http://two")
    assert settings.uplink_urls == ()
    named = EdgeSettings.from_env(EDGE | {"VOXPLANE_UPLINK_URLS": "ws://one,wss://two/"})
    assert named.uplink_urls == ("ws://one", "wss://two")


def test_an_uplink_is_a_websocket() -> None:
    with pytest.raises(SettingsError, match="VOXPLANE_UPLINK_URLS"):
        EdgeSettings.from_env(EDGE | {"VOXPLANE_UPLINK_URLS": "ws://one,http://two"})


def test_how_long_a_lost_call_waits_is_the_operators_to_say() -> None:
    assert Settings.from_env(CONTROL).lost_after_s == 45
    assert Settings.from_env(CONTROL | {"VOXPLANE_LOST_AFTER_S": "10"}).lost_after_s == 10
    for wrong in ("0", "3601", "-1", "soon"):
        with pytest.raises(ControlSettingsError, match="VOXPLANE_LOST_AFTER_S"):
            Settings.from_env(CONTROL | {"VOXPLANE_LOST_AFTER_S": wrong})


def test_an_instance_sends_webhooks_unless_it_is_told_not_to() -> None:
    assert [Settings.from_env(CONTROL | {"VOXPLANE_DELIVERIES": v}).deliveries for v in ("", "1", "0")] == [
        True, True, False,
    ]  # fmt: skip
    with pytest.raises(ControlSettingsError, match="VOXPLANE_DELIVERIES"):
        Settings.from_env(CONTROL | {"VOXPLANE_DELIVERIES": "no"})


def test_projects_list_no_inner_targets_unless_the_deployment_lets_them() -> None:
    assert [
        Settings.from_env(CONTROL | {"VOXPLANE_ALLOW_PROJECT_TARGETS": v}).project_targets
        for v in ("", "0", "1")
    ] == [False, False, True]
    with pytest.raises(ControlSettingsError, match="VOXPLANE_ALLOW_PROJECT_TARGETS"):
        Settings.from_env(CONTROL | {"VOXPLANE_ALLOW_PROJECT_TARGETS": "test"})


def test_calls_are_kept_as_long_as_their_events() -> None:
    kept = Settings.from_env(CONTROL | {"VOXPLANE_EVENTS_KEPT_DAYS": "60", "VOXPLANE_CALLS_KEPT_DAYS": "60"})
    assert (kept.events_kept_d, kept.calls_kept_d) == (60, 60)
    for wrong in ({"VOXPLANE_EVENTS_KEPT_DAYS": "91"}, {"VOXPLANE_CALLS_KEPT_DAYS": "29"}):
        with pytest.raises(ControlSettingsError, match="VOXPLANE_CALLS_KEPT_DAYS"):
            Settings.from_env(CONTROL | wrong)


def test_default_quotas_are_read_or_refused_with_what_is_wrong() -> None:
    def of(text: str) -> object:
        return msgspec.to_builtins(
            Settings.from_env(CONTROL | {"VOXPLANE_DEFAULT_QUOTAS": text}).default_quotas
        )

    assert of("") == {}
    assert of("concurrent_calls=5, destinations=US+CA,") == {
        "concurrent_calls": 5,
        "destinations": ["CA", "US"],
    }
    assert of("destinations=") == {"destinations": []}
    for wrong, says in (
        ("calls=5", "is no quota"),
        ("concurrent_calls", "whole number"),
        ("concurrent_calls=-1", "whole number"),
        ("creates_per_s=0", "creates_per_s"),
        ("creates_per_s=1,creates_per_s=2", "twice"),
        ("destinations=Germany", "destinations"),
    ):
        with pytest.raises(ControlSettingsError, match=says):
            of(wrong)
