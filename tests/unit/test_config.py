from __future__ import annotations

from pathlib import Path

import pytest

from services.runtime import config
from services.runtime.config import Config
from services.runtime.errors import Misconfigured


def test_without_anything_the_defaults_hold() -> None:
    loaded = config.load({}, {}, {})
    assert loaded == Config(host=config.default_host())
    assert (loaded.state_dir, loaded.run_dir) == (Path("/var/lib/netplugin"), Path("/run/netplugin"))
    assert (loaded.actors, loaded.bridge, loaded.datapath) == (("ipam", "host"), "vlanBr", "auto")


def test_a_flag_wins_over_the_environment_and_that_over_the_file() -> None:
    environ = {"NETPLUGIN_BRIDGE": "fromEnv", "NETPLUGIN_DATAPATH": "netdev"}
    toml = {"bridge": "fromFile", "datapath": "system", "host": "h9"}
    loaded = config.load({"bridge": "fromFlag"}, environ, toml)
    assert (loaded.bridge, loaded.datapath, loaded.host) == ("fromFlag", "netdev", "h9")


def test_what_a_child_is_told_is_what_it_loads() -> None:
    flags = {"nats": "nats://a:1", "creds": "/k/ipam.nk", "host": "h1", "actors": "host", "vtep": "172.30.0.1"}
    told = config.load(flags, {}, {})
    assert config.load({}, told.variables(), {}) == told


def test_actors_start_in_their_order_whatever_the_order_given() -> None:
    assert config.load({"actors": "host, ipam"}, {}, {}).actors == ("ipam", "host")
    assert config.load({}, {}, {"actors": ["host"]}).actors == ("host",)


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "names"),
    [
        ({"host": "A.b"}, {}, {}, ["--host", "host name"]),
        ({"host": ""}, {}, {}, ["--host"]),
        ({}, {"NETPLUGIN_DATAPATH": "fast"}, {}, ["NETPLUGIN_DATAPATH", "auto, system or netdev"]),
        ({}, {}, {"actors": "ipam,gremlin"}, ["actors in the file", "gremlin"]),
        ({}, {}, {"actors": []}, ["actors in the file"]),
        ({}, {}, {"bridge": 7}, ["bridge in the file", "text"]),
        ({}, {}, {"brigde": "x", "host": "h"}, ["brigde", "bridge"]),
        ({"bridge": "a b"}, {}, {}, ["--bridge", "at most 15"]),
        ({"creds": "/x"}, {}, {}, ["--creds", "--nats"]),
        ({"log_level": "loud"}, {}, {}, ["--log-level"]),
        ({"vtep": "eth0"}, {}, {}, ["--vtep", "address"]),
        ({}, {"NETPLUGIN_VTEP": "224.0.0.1"}, {}, ["NETPLUGIN_VTEP", "unicast"]),
        ({"metrics": "here"}, {}, {}, ["--metrics", "ADDRESS:PORT"]),
        ({"metrics": "host:9464"}, {}, {}, ["--metrics", "ADDRESS:PORT"]),
        ({"metrics": "70000"}, {}, {}, ["--metrics"]),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    flags: dict[str, str], environ: dict[str, str], toml: dict[str, object], names: list[str]
) -> None:
    with pytest.raises(Misconfigured) as caught:
        config.load(flags, environ, toml)
    assert all(name in str(caught.value) for name in names), caught.value


def test_a_file_that_is_named_must_be_there_and_readable(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no such file"):
        config.read_file(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("bridge = ")
    with pytest.raises(Misconfigured, match=r"broken\.toml"):
        config.read_file(broken)
    broken.write_bytes(b"bridge = '\xff'")
    with pytest.raises(Misconfigured, match=r"broken\.toml"):
        config.read_file(broken)


def test_a_file_is_read_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "netplugin.toml"
    file.write_text('state_dir = "/srv/np"\nactors = ["host"]\n')
    loaded = config.load({}, {}, config.read_file(file))
    assert (loaded.state_dir, loaded.actors) == (Path("/srv/np"), ("host",))


ELSEWHERE = {"host": "h1", "nats": "nats://10.0.0.1:4222"}


@pytest.mark.parametrize(
    ("stated", "meant"), [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False)]
)
def test_unverified_identity_is_yes_or_no(stated: str, meant: bool) -> None:
    found = config.load(ELSEWHERE, {"NETPLUGIN_UNVERIFIED_IDENTITY": stated}, {})
    assert found.unverified_identity is meant
    assert config.load({}, found.variables(), {}) == found, "an actor is told the same"


def test_unverified_identity_is_off_unless_it_is_asked_for() -> None:
    assert not config.load(ELSEWHERE, {}, {}).unverified_identity
    assert config.load({**ELSEWHERE, "unverified_identity": "true"}, {}, {}).unverified_identity
    assert config.load(ELSEWHERE, {}, {"unverified_identity": True}).unverified_identity
    with pytest.raises(Misconfigured, match="NETPLUGIN_UNVERIFIED_IDENTITY is 'maybe': expected"):
        config.load(ELSEWHERE, {"NETPLUGIN_UNVERIFIED_IDENTITY": "maybe"}, {})
    with pytest.raises(Misconfigured, match="--unverified-identity was given without --nats"):
        config.load({"unverified_identity": "true"}, {}, {})


@pytest.mark.parametrize(
    ("said", "meant"), [("9464", "127.0.0.1:9464"), ("0.0.0.0:1", "0.0.0.0:1"), ("[::1]:9464", "[::1]:9464")]
)
def test_figures_are_told_on_loopback_unless_an_address_is_named(said: str, meant: str) -> None:
    assert config.load({"metrics": said}, {}, {}).metrics == meant
    assert config.load({}, {}, {}).metrics == ""
