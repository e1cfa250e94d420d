"""The encoder held against Open vSwitch's own reading of the same bytes and of the same words."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_actor import openflow as of
from host_actor.openflow import Flow, apply, copy_field, flow, goto, group, match, output, set_field
from tests.requires import needs_tool

MAC = "02:00:00:00:00:07"
REG0 = 0xFFFFFFFF00000000
FACTS = re.compile(r"^(?:OFPT_FLOW_MOD|NXT_FLOW_MOD) \(OF1\.5\)(?: \(xid=0x\d\))?: (.*)$", re.MULTILINE)


def read_back(*messages: bytes, folder: Path) -> str:
    """What `ovs-ofctl` makes of binary messages."""
    file = folder / "messages"
    file.write_bytes(b"".join(messages))
    return subprocess.run(["ovs-ofctl", "ofp-parse", str(file)], capture_output=True, text=True, check=True).stdout


def understood(words: str) -> str:
    """What `ovs-ofctl` makes of a flow in words."""
    command = ["ovs-ofctl", "-OOpenFlow15", "parse-flow", words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


CASES = [
    (
        flow(0, 100, match(in_port=3, eth_src=MAC, vlan_vid=0), apply(set_field("reg0", 7)) + goto(10)),
        f"table=0,priority=100,in_port=3,dl_src={MAC},vlan_tci=0/0x1fff,actions=set_field:7->reg0,goto_table:10",
    ),
    (
        flow(10, 100, match(in_port=3, eth_type=0x0800, ipv4_src=bytes([10, 0, 0, 7])), goto(50)),
        "table=10,priority=100,ip,in_port=3,nw_src=10.0.0.7,actions=goto_table:50",
    ),
    (flow(10, 105, match(eth_type=0x86DD, ip_proto=58, icmpv6_type=134)), "table=10,priority=105,icmp6,icmp_type=134"),
    (
        flow(
            20,
            100,
            match(xreg0=(7 << 32, REG0), eth_type=0x0806, arp_op=1, arp_tpa=bytes([10, 0, 0, 7])),
            apply(
                copy_field("eth_src", "eth_dst"),
                set_field("eth_src", MAC),
                set_field("arp_op", 2),
                copy_field("arp_spa", "arp_tpa"),
                output(of.PORT_IN_PORT),
            ),
        ),
        (
            "table=20,priority=100,arp,reg0=7,arp_op=1,arp_tpa=10.0.0.7,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],"
            f"set_field:{MAC}->eth_src,set_field:2->arp_op,move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],IN_PORT"
        ),
    ),
    (
        flow(
            21,
            100,
            match(eth_type=0x86DD, ip_proto=58, icmpv6_type=136, icmpv6_code=0, nd_target=bytes([0xFD, *[0] * 14, 7])),
            apply(set_field("nd_reserved", 0x60000000), set_field("nd_options_type", 2), set_field("nd_tll", MAC)),
        ),
        (
            "table=21,priority=100,icmp6,icmp_type=136,icmp_code=0,nd_target=fd00::7,"
            f"actions=set_field:0x60000000->nd_reserved,set_field:2->nd_options_type,set_field:{MAC}->nd_tll"
        ),
    ),
    (
        flow(
            0,
            100,
            match(tunnel_id=5001, tun_src=bytes([172, 30, 0, 2]), in_port=0xFE00, eth_src=MAC),
            apply(set_field("reg0", 7)) + goto(50),
        ),
        (
            f"table=0,priority=100,tun_id=5001,tun_src=172.30.0.2,in_port=65024,dl_src={MAC},"
            "actions=set_field:7->reg0,goto_table:50"
        ),
    ),
    (
        flow(
            50,
            100,
            match(xreg0=(7 << 32, REG0), eth_dst=MAC),
            apply(set_field("tunnel_id", 5001), set_field("tun_ipv6_dst", bytes([0xFD, *[0] * 14, 7])), output(0xFE00)),
        ),
        (
            f"table=50,priority=100,reg0=7,dl_dst={MAC},"
            "actions=set_field:5001->tun_id,set_field:fd00::7->tun_ipv6_dst,output:65024"
        ),
    ),
    (
        flow(
            50, 100, match(eth_dst=("01:00:00:00:00:00", "01:00:00:00:00:00"), xreg0=(7 << 32, REG0)), apply(group(9))
        ),
        "table=50,priority=100,reg0=7,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=group:9",
    ),
]


@needs_tool("ovs-ofctl")
@pytest.mark.parametrize(("entry", "words"), CASES, ids=[str(index) for index in range(len(CASES))])
def test_a_flow_is_read_back_as_the_same_words(entry: Flow, words: str, tmp_path: Path) -> None:
    words = words if "actions" in words else f"{words},actions=drop"
    ours = FACTS.findall(read_back(of.add_flow(entry), folder=tmp_path))
    assert ours == FACTS.findall(understood(words))
    assert ours


@needs_tool("ovs-ofctl")
def test_removals_name_what_they_remove(tmp_path: Path) -> None:
    entry = CASES[1][0].with_cookie(0x1234)
    assert "DEL table:255 priority=0 cookie:0x1200/0xffffffffffffffff" in read_back(
        of.delete_by_cookie(0x1200), folder=tmp_path
    )
    strictly = read_back(of.delete_flow(entry), folder=tmp_path)
    assert "DEL_STRICT table:10 priority=100,ip,in_port=3,nw_src=10.0.0.7 cookie:0x1234/0xffffffffffffffff" in strictly


@needs_tool("ovs-ofctl")
def test_groups_have_a_bucket_for_each_port(tmp_path: Path) -> None:
    def shown(*arguments: object) -> str:
        return read_back(of.group_mod(*arguments), folder=tmp_path)  # type: ignore[arg-type]

    both = "bucket=bucket_id:1,actions=output:1,bucket=bucket_id:2,actions=output:2"
    assert f"ADD group_id=7,type=all,{both}" in shown(of.GroupCommand.ADD, 7, map(of.port_bucket, [1, 2]))
    inserted = shown(of.GroupCommand.INSERT_BUCKET, 7, [of.port_bucket(2)], of.BUCKET_LAST)
    assert "INSERT_BUCKET command_bucket_id:last,group_id=7" in inserted
    assert "REMOVE_BUCKET command_bucket_id:2,group_id=7" in shown(of.GroupCommand.REMOVE_BUCKET, 7, [], 2)
    assert "DEL group_id=7" in shown(of.GroupCommand.DELETE, 7)
    far = b"".join((set_field("tunnel_id", 5001), set_field("tun_dst", bytes([172, 30, 0, 2])), output(0xFE00)))
    said = "bucket=bucket_id:2887647234,actions=set_field:0x1389->tun_id,set_field:172.30.0.2->tun_dst,output:65024"
    assert said in shown(of.GroupCommand.ADD, 7, [of.Bucket(0xAC1E0002, far)])


@needs_tool("ovs-ofctl")
def test_a_bundle_holds_its_messages(tmp_path: Path) -> None:
    inner = of.add_flow(CASES[1][0])
    opened = of.bundle_control(5, of.BundleControl.OPEN_REQUEST, xid=1)
    shown = read_back(opened, of.bundle_add(5, inner, xid=2), folder=tmp_path)
    assert "bundle_id=0x5 type=OPEN_REQUEST flags=atomic ordered" in shown
    assert "OFPT_FLOW_MOD (OF1.5) (xid=0x2): ADD table:10" in shown


fields = st.fixed_dictionaries(
    {"in_port": st.integers(1, 0xFEFF), "eth_src": st.binary(min_size=6, max_size=6), "eth_type": st.just(0x0800)},
    optional={"ipv4_src": st.binary(min_size=4, max_size=4), "ipv4_dst": st.binary(min_size=4, max_size=4)},
)


def described(entry: Flow) -> bytes:
    """The entry as a switch's flow description shows it, no statistics being kept."""
    fields_struct = of._match_struct(entry.match)
    body = fields_struct + b"\x80\x02\x00\x04" + bytes(4) + entry.instructions
    head = of._FLOW_DESC.pack(of._FLOW_DESC.size + len(body), entry.table, entry.priority, 0, 0, 0, 0, entry.cookie)
    return head + body


@given(
    st.lists(
        st.builds(
            lambda f, p, c: flow(3, p, match(**f), goto(4)).with_cookie(c),
            fields,
            st.integers(0, 65535),
            st.integers(0, 2**64 - 1),
        )
    )
)
def test_what_a_switch_describes_is_read_back(entries: list[Flow]) -> None:
    assert of.parse_flow_desc(b"".join(map(described, entries))) == entries


@given(fields, st.randoms())
def test_the_checksum_does_not_depend_on_the_order_of_fields(found: dict[str, int | bytes], chance: object) -> None:
    names = list(found)
    chance.shuffle(names)  # type: ignore[attr-defined]
    ordered = flow(3, 1, match(**found))
    shuffled = flow(3, 1, b"".join(match(**{name: found[name]}) for name in names))
    assert ordered.checksum == shuffled.checksum
    assert ordered.checksum != flow(4, 1, match(**found)).checksum


def test_a_value_of_another_size_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="expected 6 bytes, found 4"):
        match(eth_src=bytes(4))
