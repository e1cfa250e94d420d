"""References, and reading HTTP/1.1 however its bytes are cut."""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_actor.runtimes import RUNTIMES, runtimes_of
from host_actor.runtimes.contract import NotFound, Started, Waiting
from host_actor.runtimes.docker import Docker
from host_actor.runtimes.engine_socket import EngineSocket
from host_actor.runtimes.http1 import End, Garbled, Head, ResponseReader
from host_actor.runtimes.kernel import ProcessEnds
from host_actor.runtimes.named_namespaces import NamedNamespaces
from host_actor.runtimes.processes import Processes
from host_actor.runtimes.reference import Reference
from services.runtime.errors import Unavailable

ID = "29eb84aa6b9f9359c92a969e91338cd16e25764197d078dc83e71c0afcade7ee"


@pytest.mark.parametrize(
    ("text", "runtime", "name"),
    [
        ("web", "docker", "web"),
        ("/web", "docker", "web"),
        (" web ", "docker", "web"),
        ("docker:web", "docker", "web"),
        (ID, "docker", ID),
        ("netns:blue", "netns", "blue"),
        ("netns:/blue", "netns", "/blue"),
        ("pid:12", "pid", "12"),
        ("tap:t0", "tap", "t0"),
        ("netns:a:b", "netns", "a:b"),
        ("", "docker", ""),
    ],
)
def test_a_reference_has_a_runtime_and_a_name(text: str, runtime: str, name: str) -> None:
    assert Reference.of(text) == Reference(runtime, name)


@given(st.text())
def test_every_string_is_a_reference(text: str) -> None:
    Reference.of(text)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.anyio
async def test_the_last_file_descriptors_are_not_spent_on_following() -> None:
    ended: list[str] = []
    ends = ProcessEnds(ended.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_files()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before + 32, hard))
        assert ends.follow("self", os.getpid())
        assert open_files() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert ends.follow("self", os.getpid())
    assert open_files() == before + 1
    ends.close()
    assert ended == []


@pytest.mark.parametrize("reference", ["web", "/web", "docker:web", ID, ID[:12], f"docker:{ID[:12]}"])
def test_a_started_container_answers_to_its_names_and_ids(reference: str) -> None:
    assert Started("docker", "web", ID).answers_to(reference)


@pytest.mark.parametrize("reference", ["webb", "we", "netns:web", "pid:29", "", "docker:", "30eb84aa6b9f"])
def test_a_started_container_answers_to_nothing_else(reference: str) -> None:
    assert not Started("docker", "web", ID).answers_to(reference)


def test_a_named_namespace_answers_with_its_prefix_only() -> None:
    assert Started("netns", "blue").answers_to("netns:blue")
    assert not Started("netns", "blue").answers_to("blue")


def test_each_kind_of_the_contract_is_registered() -> None:
    assert set(RUNTIMES) == {"docker", "netns", "pid"}


@pytest.mark.anyio
@pytest.mark.parametrize("reference", ["tap:t0", "Docker:web", ":web"])
async def test_an_unknown_runtime_is_named_with_those_that_are_known(reference: str) -> None:
    found = await runtimes_of({}).resolve(reference)
    assert isinstance(found, NotFound)
    assert found.code == "invalid-reference"
    assert "docker:, netns:, pid:" in found.detail


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "a b", "-web", "web/x", "..", "a\nb", "x" * 254, "ä", "web?all=1"])
async def test_what_is_no_docker_name_is_never_sent(name: str) -> None:
    found = await Docker("unix:///nobody/listens").resolve(name)
    assert isinstance(found, NotFound)
    assert found.code == "invalid-reference"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../proc/1/ns/net", "a\0b", "x" * 256])
async def test_what_is_no_namespace_name_is_refused(name: str) -> None:
    found = await NamedNamespaces().resolve(name)
    assert isinstance(found, NotFound)
    assert found.code == "invalid-reference"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "0", "-1", "1x", "self", "٣", "99999999999", "1/ns"])
async def test_what_is_no_process_number_is_refused(name: str) -> None:
    found = await Processes().resolve(name)
    assert isinstance(found, NotFound)
    assert found.code == "invalid-reference"


@pytest.mark.anyio
async def test_an_engine_that_is_away_makes_the_container_wait(tmp_path: Path) -> None:
    found = await Docker.of({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}).resolve("web")
    assert isinstance(found, Waiting)
    assert found.code == "engine-away"
    assert f"{tmp_path}/docker.sock: No such file or directory" in found.detail


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "ssh://root@h2", "docker.sock", "unix://docker.sock"])
async def test_an_engine_elsewhere_is_refused_and_says_why(host: str) -> None:
    found = await Docker.of({"DOCKER_HOST": host}).resolve("web")
    assert isinstance(found, NotFound)
    assert found.code == "engine-unsupported"
    assert host in found.detail


def read(*received: bytes) -> tuple[Head, bytes, bool]:
    """The head, the whole body, and whether it ended."""
    reader = ResponseReader()
    parts = [part for piece in received for part in reader.feed(piece)]
    assert isinstance(parts[0], Head)
    body = b"".join(part for part in parts if isinstance(part, bytes))
    return parts[0], body, isinstance(parts[-1], End)


def cut(whole: bytes, places: set[int]) -> list[bytes]:
    edges = [0, *sorted(place for place in places if 0 < place < len(whole)), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
places = st.sets(st.integers(min_value=1, max_value=400))


@given(
    chunks=bodies, at=places, extension=st.sampled_from([b"", b";a=b"]), trailer=st.sampled_from([b"", b"X-T: 1\r\n"])
)
def test_chunks_are_put_together_however_they_are_cut(
    chunks: list[bytes], at: set[int], extension: bytes, trailer: bytes
) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole += (
        b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"
    )
    head, body, is_ended = read(*cut(whole, at))
    assert (head.status, body, is_ended) == (200, b"".join(chunks), True)


@given(body=st.binary(max_size=200), at=places)
def test_a_counted_body_is_put_together_however_it_is_cut(body: bytes, at: set[int]) -> None:
    whole = b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    head, got, is_ended = read(*cut(whole, at))
    assert (head.status, head.is_kept, got, is_ended) == (404, False, body, True)


@given(body=st.binary(max_size=200), at=places)
def test_a_body_without_a_count_ends_with_the_connection(body: bytes, at: set[int]) -> None:
    assert read(*cut(b"HTTP/1.1 200 OK\r\n\r\n" + body, at), b"")[1:] == (body, True)


def test_a_response_without_body_ends_with_its_head() -> None:
    assert read(b"HTTP/1.1 204 No Content\r\n\r\n")[1:] == (b"", True)


@given(chunks=bodies, missing=st.integers(min_value=1, max_value=40))
def test_a_close_in_the_middle_is_never_taken_for_an_end(chunks: list[bytes], missing: int) -> None:
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole += b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with pytest.raises(Garbled):
        read(whole[:-missing], b"")


@pytest.mark.parametrize(
    "garbled",
    [
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 5000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_what_is_no_response_is_garbled(garbled: bytes) -> None:
    with pytest.raises(Garbled):
        read(garbled)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_garbled(received: bytes) -> None:
    with suppress(Garbled):
        list(ResponseReader().feed(received or b"x"))


async def answering(path: Path, answers: list[bytes]) -> asyncio.Server:
    """A server that answers one request after the other with `answers` and closes the connection after each."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))
        await writer.drain()
        writer.close()

    return await asyncio.start_unix_server(answer, path)


@pytest.mark.anyio
async def test_a_connection_closed_by_the_engine_is_replaced(short_path: Path) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with await answering(short_path / "s", [ok, ok]):
        engine = EngineSocket(str(short_path / "s"))
        assert [await engine.get("/a"), await engine.get("/b")] == [(200, b"ok")] * 2
        engine.close()


@pytest.mark.anyio
async def test_an_engine_that_says_nothing_is_unavailable_in_time(short_path: Path) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(listen, short_path / "s"):
        engine = EngineSocket(str(short_path / "s"), timeout_s=0.05)
        with pytest.raises(Unavailable, match="no answer from the engine"):
            await engine.get("/a")
        engine.close()
        await asyncio.sleep(0)


@pytest.mark.anyio
async def test_an_answer_that_is_no_container_makes_it_wait(short_path: Path) -> None:
    body = b'{"Id": 5}'
    async with await answering(
        short_path / "s", [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)]
    ):
        docker = Docker(f"unix://{short_path}/s")
        found = await docker.resolve("web")
        assert isinstance(found, Waiting)
        assert found.code == "engine-away"
        assert "$.Id" in found.detail
        await docker.close()
