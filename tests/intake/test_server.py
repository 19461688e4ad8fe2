"""Intake behind its real server, byte by byte: what an in-process client cannot send."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from eventstreams.addresses import parse_networks
from eventstreams.server import beside, listen
from intake.endpoints import EndpointOptions
from intake.options import IntakeOptions
from tests.intake.conftest import Open, Rig, thing

RAW = json.dumps(thing()).encode()


@contextlib.asynccontextmanager
async def connected(rig: Rig) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        async with beside(rig.app, listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                yield reader, writer
            finally:
                writer.close()
                await writer.wait_closed()


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/events HTTP/1.1", "Host: intake", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def test_forwarded_addresses_are_believed_from_trusted_proxies_only(open_intake: Open) -> None:
    for trusted, address in (((), "127.0.0.1"), (parse_networks(["127.0.0.0/8"]), "5.6.7.8")):
        async with open_intake(endpoint=EndpointOptions(trusted=trusted)) as rig, connected(rig) as (reader, writer):
            writer.write(post(RAW, "X-Forwarded-For: 5.6.7.8, 9.9.9.9", "Connection: close"))
            assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
            (event,) = await rig.events("things")
            assert event["http"]["client_ip"] == address


async def test_client_that_asks_first_is_told_to_go_on(open_intake: Open) -> None:
    async with open_intake() as rig, connected(rig) as (reader, writer):
        head, _, body = post(RAW, "Expect: 100-continue", "Connection: close").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")


async def test_body_over_the_limit_is_refused_before_it_is_sent(open_intake: Open) -> None:
    async with open_intake(endpoint=EndpointOptions(max_body_bytes=100)) as rig, connected(rig) as (reader, writer):
        writer.write(post(b"x" * 101, "Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X-Any: 1", 413),
        ("Content-Encoding: br", 415),
        ("Content-Encoding: gzip", 413),
        ("Transfer-Encoding: chunked", 413),
    ],
)
async def test_client_that_sends_all_before_it_reads_gets_its_refusal(
    open_intake: Open, header: str, status: int
) -> None:
    body = b"x" * 20_000_000
    if header.startswith("Transfer"):
        head = post(b"", header).replace(b"Content-Length: 0\r\n", b"")
        request = head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        request = post(body, header)
    async with open_intake() as rig, connected(rig) as (reader, writer):
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nconnection: close\r\n" in answer


async def test_client_that_goes_in_the_middle_of_its_body_leaves_nothing(open_intake: Open) -> None:
    async with open_intake() as rig:
        async with connected(rig) as (_, writer):
            writer.write(post(RAW)[:-1])
            await writer.drain()
        assert await rig.stored("things") == []


async def test_bodies_count_while_they_come(open_intake: Open) -> None:
    async with open_intake(IntakeOptions(max_in_flight_bytes=1000)) as rig, connected(rig) as (reader, writer):
        with rig.intake.in_flight.reserve(600):
            head, _, body = post(json.dumps(thing(name="x" * 500)).encode()).partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n" + body[:450])
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert rig.value("eventstreams_intake_in_flight_bytes") == 600


async def test_stopping_intake_refuses_before_the_body_and_closes(open_intake: Open) -> None:
    async with open_intake() as rig, connected(rig) as (reader, writer):
        await rig.intake.drain(1.0)
        writer.write(post(RAW).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
