"""The corpus of the fuzzer, each input of it once; and that what is wrong would be found."""

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from server import pager
from server.fids import Client
from server.handlers import HANDLERS, qid_of
from server.vhost.device import Device
from server.vhost.eventfd import Eventfd
from server.vhost.message import Message
from server.wire import messages as m
from tmpfs_core.access import ROOT

from . import grammar, target
from .seeds import CORPUS, SEEDS, corpus
from .steps import Step, encode


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    monkeypatch.setattr(pager, "RETRY", pager.RETRY)  # make_loop sets it
    loop = target.make_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_an_input_of_the_corpus(loop: asyncio.AbstractEventLoop, name: str) -> None:
    target.run((CORPUS / name).read_bytes(), loop)  # it asserts what must hold


def test_the_seeds_are_in_the_corpus(loop: asyncio.AbstractEventLoop) -> None:
    """``python -m tests.fuzz.seeds`` writes them."""
    for name, data in corpus().items():
        assert (CORPUS / name).read_bytes() == data
        assert target.run(data, loop) > 0  # messages


def test_inputs_of_the_grammar(loop: asyncio.AbstractEventLoop) -> None:
    dice = Random(9)
    data = corpus()["swap"]
    for _ in range(100):
        data = grammar.mutated(data, 2000, dice.getrandbits(32))
        assert len(data) <= 2000
        target.run(data, loop)


# Handlers that are wrong


def fails(client: Client, tag: int, *fields: Any) -> bytes:
    raise ValueError("nobody foresaw this")


def answers_something_else(client: Client, tag: int, *fields: Any) -> bytes:
    return m.Rclunk.pack(tag)


def answers_somebody_else(client: Client, tag: int, *fields: Any) -> bytes:
    return m.Rread.pack(tag + 100, b"")


def answers_too_much(client: Client, tag: int, *fields: Any) -> bytes:
    return m.Rread.pack(tag, bytes(5000))


def takes_a_berth(client: Client, tag: int, *fields: Any) -> bytes:
    client.get(0).node.mount.memory.arena.berth(1)
    return m.Rread.pack(tag, b"")


def shows_old_bytes(client: Client, tag: int, *fields: Any) -> bytes:
    arena = client.get(0).node.mount.memory.arena
    berths = arena.berth(1)
    assert berths is not None
    arena.leave(berths)
    return m.Rread.pack(tag, berths[0].mem[:100])


def attaches_as_root(client: Client, tag: int, fid: int, *fields: Any) -> bytes:
    """Whatever the export says."""
    export = client.exports.get(fields[2])
    client.attach(fid, export, ROOT)
    return m.Rattach.pack(tag, qid_of(export.mount.root))


async def for_ever(tag: int) -> bytes:
    while tag < 1 << 16:  # noqa: ASYNC110 it waits for nothing
        await asyncio.sleep(0)
    return b""


async def never(tag: int) -> bytes:
    await asyncio.Event().wait()
    return b""


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (fails, "request failed unexpectedly"),
        (answers_something_else, "Rclunk.*to Request"),
        (answers_somebody_else, "which asked nothing"),
        (answers_too_much, "<5000 bytes>. to Request"),
        (takes_a_berth, "a berth is left"),
        (shows_old_bytes, "what nobody may see is shown"),
        (lambda client, tag, *fields: for_ever(tag), "no end of it"),
        (lambda client, tag, *fields: never(tag), "no reply to"),
    ],
)
def test_a_wrong_handler_is_found(
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    wrong: Callable[..., Any],
    found: str,
) -> None:
    monkeypatch.setitem(HANDLERS, m.Tread.TYPE, (m.Tread.call, wrong))
    with pytest.raises(AssertionError, match=found):
        target.run(corpus()["small-file"], loop)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))


def waits_for_ever(client: Client, tag: int, *fields: Any) -> Any:
    return never(tag)


def fails_to(*args: object) -> None:
    raise ValueError("nobody foresaw this")


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "found"),
    [
        (HANDLERS, m.Tread.TYPE, (m.Tread.call, answers_something_else), "reply 121 to 116"),
        (HANDLERS, m.Tread.TYPE, (m.Tread.call, answers_somebody_else), "which asked nothing"),
        (HANDLERS, m.Tread.TYPE, (m.Tread.call, shows_old_bytes), "may see is shown"),
        (HANDLERS, m.Tread.TYPE, (m.Tread.call, waits_for_ever), "no reply to .116"),
        (Device, "handle", fails_to, "Exception in callback"),
        (Device, "close", lambda device: None, "is left"),
        (Eventfd, "close", lambda event: None, "a descriptor is left"),
        (Message, "close", lambda message: None, "a descriptor is left"),
    ],
)
def test_what_is_wrong_with_machines_is_found(
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: Any,
    wrong: Any,
    found: str,
) -> None:
    put = monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr
    put(owner, name, wrong)
    with pytest.raises(AssertionError, match=found):
        target.run(corpus()["machine"], loop)


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (SEEDS["fixed"][1:], "what nobody may see is shown"),
        (SEEDS["fixed"][:1], "what is read-only was changed"),
    ],
)
def test_permissions_that_are_not_checked_are_found(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, steps: list[Step], found: str
) -> None:
    monkeypatch.setitem(HANDLERS, m.Tattach.TYPE, (m.Tattach.call, attaches_as_root))
    with pytest.raises(AssertionError, match=found):
        target.run(encode([grammar.begun(0), *steps]), loop)
