"""What the engine learns about a call: an answer, NotSent or Lost. Real sockets on 127.0.0.1.

Over 500 lines, since "never twice" stands on the one table of faults and on all that goes with it.
"""

import asyncio
import gc
import ssl
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from pathlib import Path

import httpx
import pytest
import respx
from transports import faults
from transports.faults import ANSWER, Fault, FaultyServer

from gateway.ports import (
    Answered,
    Auth,
    Lost,
    NotSent,
    Request,
    Response,
    Transport,
    TransportError,
)
from gateway.transports.http import HttpTransport
from gateway.transports.pool import ConnectionPool

SECRET = "s3cret"
VENDOR = "https://vendor.test/send"
TOKENS = "https://vendor.test/token"


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(ConnectionPool())
    yield transport
    await transport.aclose()


def post(url: str, **timeout: float) -> Request:
    return Request(
        "POST",
        f"{url}/{SECRET}?key={SECRET}",
        headers={"X-Api-Key": SECRET},
        json={"code": SECRET},
        extensions={"timeout": timeout} if timeout else None,
    )


async def failure(transport: Transport, request: Request, within: float = 5) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await transport.send(request, within=within)
    return caught.value


def mocked(router: respx.MockRouter) -> HttpTransport:
    return HttpTransport(httpx.MockTransport(router.async_handler))


# --- Not sent, or lost --------------------------------------------------------------------------

FAULTS = [
    # fault, scheme spoken to it, what it means, requests it received
    (None, "http", (NotSent, "connect_error"), 0),
    (None, "https", (NotSent, "connect_error"), 0),
    (faults.talks_first, "https", (NotSent, "connect_error"), 0),
    (faults.closes_at_once, "https", (NotSent, "connect_error"), 0),
    (faults.never_answers, "https", (NotSent, "connect_timeout"), 0),
    (faults.closes_after_request, "http", (Lost, "protocol_error"), 1),
    (faults.resets_after_request, "http", (Lost, "read_error"), 1),
    (faults.half_a_head, "http", (Lost, "protocol_error"), 1),
    (faults.half_a_body, "http", (Lost, "protocol_error"), 1),
    (faults.talks_garbage, "http", (Lost, "protocol_error"), 1),
    (faults.unzippable, "http", (Lost, "protocol_error"), 1),
    (faults.talks_too_much, "http", (Lost, "protocol_error"), 1),
    (faults.zips_a_bomb, "http", (Lost, "protocol_error"), 1),
]


@pytest.mark.parametrize(("fault", "scheme", "expected", "received"), FAULTS)
async def test_a_broken_call_is_not_sent_only_if_the_server_has_seen_nothing(
    transport: HttpTransport,
    fault: Fault | None,
    scheme: str,
    expected: tuple[type[TransportError], str],
    received: int,
) -> None:
    async with FaultyServer(fault) as server:
        error = await failure(transport, post(f"{scheme}://127.0.0.1:{server.port}", connect=1))

    assert expected == (type(error), error.reason)
    assert received == len(server.requests)


async def test_a_connection_that_stood_for_a_moment_may_have_carried_the_request(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.closes_at_once) as server:
        error = await failure(transport, post(server.url))

    assert (type(error), error.reason) in {
        (Lost, "protocol_error"),
        (Lost, "read_error"),
        (NotSent, "connect_error"),  # its end was seen before anything was written
    }


SILENCES = [
    # fault, httpx's own limits, seconds in total, what the engine hears
    (faults.never_answers, {}, 0.5, "timeout"),
    (faults.half_a_body_and_silence, {}, 0.5, "timeout"),
    (faults.drips, {}, 0.5, "timeout"),
    (faults.drips, {"read": 0.2}, 0.5, "timeout"),
    (faults.never_answers, {"read": 0.1}, 5, "read_timeout"),
    (faults.half_a_body_and_silence, {"read": 0.1}, 5, "read_timeout"),
]


@pytest.mark.parametrize(("fault", "limits", "within", "reason"), SILENCES)
async def test_a_server_that_takes_its_time_gets_no_more_than_there_is(
    transport: HttpTransport, fault: Fault, limits: dict[str, float], within: float, reason: str
) -> None:
    loop = asyncio.get_running_loop()
    async with FaultyServer(fault) as server:
        start = loop.time()
        error = await failure(transport, post(server.url, **limits), within)
        took = loop.time() - start

    assert (Lost, reason) == (type(error), error.reason)
    assert 1 == len(server.requests)
    assert took < 4


async def test_a_connection_that_does_not_come_about_in_time_is_not_sent(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.never_answers) as server:
        url = f"https://127.0.0.1:{server.port}"  # TCP stands, TLS hangs
        total = await failure(transport, post(url), within=0.1)
        single = await failure(transport, post(url, connect=0.1))

    assert (NotSent, "connect_timeout") == (type(total), total.reason)
    assert (NotSent, "connect_timeout") == (type(single), single.reason)


@pytest.mark.parametrize(("limits", "within"), [({}, 0.2), ({"pool": 0.2}, 5)])
async def test_waiting_for_a_connection_is_not_sent(
    limits: dict[str, float], within: float
) -> None:
    transport = HttpTransport(ConnectionPool(limit=1))
    async with FaultyServer(faults.never_answers) as server:
        first = asyncio.create_task(failure(transport, post(server.url)))
        await server.seen.wait()
        error = await failure(transport, post(server.url, **limits), within)
        await transport.aclose()
        await first

    assert (NotSent, "pool_timeout") == (type(error), error.reason)
    assert 1 == len(server.requests)


async def test_a_turn_that_comes_is_taken() -> None:
    transport = HttpTransport(ConnectionPool(limit=1))
    async with FaultyServer(faults.answers) as server:
        calls = [transport.send(post(server.url), within=5) for _ in range(5)]
        answers = await asyncio.gather(*calls)
        await transport.aclose()

    assert [200] * 5 == [answer.status_code for answer in answers]
    assert 1 == server.connections


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "/send", "http:///send", "http://127.1/send"])
async def test_an_address_that_cannot_be_is_not_sent(transport: HttpTransport, url: str) -> None:
    request = Request("POST", url, headers={"Authorization": f"Bearer {SECRET}"}, content=b"x")

    error = await failure(transport, request)

    assert (NotSent, "bad_url") == (type(error), error.reason)


async def test_an_unknown_host_is_not_sent(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*args: object, **kwargs: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)

    error = await failure(transport, post("https://vendor.test"))

    assert (NotSent, "connect_error") == (type(error), error.reason)
    assert "UnknownName vendor.test:443" == error.detail


async def test_what_is_refused_while_it_is_written_counts_as_lost(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.answers) as server:
        request = Request("POST", server.url, headers={"X": "line\r\nbreak"})
        error = await failure(transport, request)

    assert (Lost, "transport_error") == (type(error), error.reason)
    assert [] == server.requests


FOREIGN = [
    (httpx.ConnectError, NotSent, "connect_error"),
    (httpx.ConnectTimeout, NotSent, "connect_timeout"),
    (httpx.PoolTimeout, NotSent, "pool_timeout"),
    (httpx.UnsupportedProtocol, NotSent, "bad_url"),
    (httpx.InvalidURL, NotSent, "bad_url"),
    (httpx.ReadTimeout, Lost, "read_timeout"),
    (httpx.ReadError, Lost, "read_error"),
    (httpx.WriteError, Lost, "write_error"),
    (httpx.WriteTimeout, Lost, "transport_error"),
    (httpx.RemoteProtocolError, Lost, "protocol_error"),
    (httpx.LocalProtocolError, Lost, "transport_error"),
    (httpx.ProxyError, Lost, "transport_error"),
    (httpx.DecodingError, Lost, "transport_error"),
]


@pytest.mark.parametrize(("raised", "kind", "reason"), FOREIGN)
async def test_the_errors_of_any_httpx_transport_are_told_apart(
    raised: type[Exception], kind: type[TransportError], reason: str
) -> None:
    def broken(request: Request) -> Response:
        raise raised(f"{SECRET} in {request.url}")

    error = await failure(HttpTransport(httpx.MockTransport(broken)), post("https://vendor.test"))

    assert (kind, reason) == (type(error), error.reason)
    assert f"{raised.__name__} vendor.test:443" == error.detail


async def test_a_transport_that_says_nothing_of_its_stage_is_lost_at_the_time_limit() -> None:
    async def hangs(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    error = await failure(HttpTransport(httpx.MockTransport(hangs)), post(VENDOR), within=0.1)

    assert (Lost, "timeout") == (type(error), error.reason)


# --- Never twice --------------------------------------------------------------------------------

METHODS = ["POST", "PUT", "GET", "DELETE", "PATCH"]  # common clients repeat three of them


@pytest.mark.parametrize("method", METHODS)
async def test_a_kept_connection_that_breaks_on_a_request_is_not_replaced(
    transport: HttpTransport, method: str
) -> None:
    async with FaultyServer(faults.answers_once) as server:
        first = await transport.send(Request(method, server.url), within=5)
        error = await failure(transport, Request(method, server.url, content=b"second"))

    assert 200 == first.status_code
    assert (Lost, "protocol_error") == (type(error), error.reason)
    assert [b"", b"second"] == server.requests
    assert 1 == server.connections


@pytest.mark.parametrize("method", METHODS)
async def test_a_kept_connection_that_went_stale_unnoticed_is_not_replaced(
    transport: HttpTransport, method: str
) -> None:
    async with FaultyServer(faults.answers) as server:
        await transport.send(Request(method, server.url), within=5)
        server.cut()  # the loop has not heard of it when the next request is written
        error = await failure(transport, Request(method, server.url, content=b"second"))

    assert Lost is type(error)
    assert [b""] == server.requests
    assert 1 == server.connections


async def test_a_kept_connection_that_was_seen_to_close_is_replaced(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.answers_and_leaves) as server:
        await transport.send(Request("POST", server.url, content=b"first"), within=5)
        await asyncio.sleep(0.05)  # the end arrives, and nothing tells that it did
        await transport.send(Request("POST", server.url, content=b"second"), within=5)

    assert [b"first", b"second"] == server.requests
    assert 2 == server.connections


async def test_a_kept_connection_that_spoke_unasked_is_not_written_to(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.speaks_unasked) as server:
        await transport.send(Request("POST", server.url, content=b"first"), within=5)
        await asyncio.sleep(0.1)  # the other answer arrives, and nothing tells that it did
        second = await transport.send(Request("POST", server.url, content=b"second"), within=5)

    assert ANSWER == second.content
    assert [b"first", b"second"] == server.requests
    assert 2 == server.connections


async def test_a_redirect_is_an_answer_and_nothing_is_remembered_from_it(
    transport: HttpTransport,
) -> None:
    async with FaultyServer(faults.redirects) as server:
        answer = await transport.send(post(server.url), within=5)
        await transport.send(post(server.url), within=5)

    assert 307 == answer.status_code
    assert 2 == len(server.requests)
    assert "cookie" not in "".join(server.heads).lower()


# --- Answers ------------------------------------------------------------------------------------


async def test_requests_go_out_as_they_were_built(transport: HttpTransport) -> None:
    async with FaultyServer(faults.answers) as server:
        request = post(server.url)
        answer = await transport.send(request, within=5)

    assert 200 == answer.status_code
    assert ANSWER == answer.content == answer.read() == await answer.aread()
    assert {"ok": True} == answer.json()
    assert "application/json" == answer.headers["content-type"]
    assert request is answer.request
    assert [request.content] == server.requests
    assert f"POST /{SECRET}?key={SECRET} HTTP/1.1" == server.heads[0].splitlines()[0]
    assert f"X-Api-Key: {SECRET}" in server.heads[0].splitlines()
    assert "user-agent: otp-gateway" in server.heads[0].lower().splitlines()


async def test_a_streamed_body_is_sent_whole(transport: HttpTransport) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with FaultyServer(faults.answers) as server:
        await transport.send(Request("POST", server.url, content=parts()), within=5)

    assert [b"one two"] == server.requests
    assert "transfer-encoding" not in server.heads[0].lower()


async def test_a_compressed_answer_is_decoded(transport: HttpTransport) -> None:
    async with FaultyServer(faults.zips) as server:
        answer = await transport.send(post(server.url), within=5)

    assert ANSWER == answer.content
    assert {"content-length": "11"} == dict(answer.headers)


async def test_the_answer_to_head_has_no_body(transport: HttpTransport) -> None:
    async def answers_head(
        server: FaultyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await server.receive(reader)
        writer.write(faults.response(ANSWER)[: -len(ANSWER)])
        await reader.read()

    async with FaultyServer(answers_head) as server:
        answer = await transport.send(Request("HEAD", server.url), within=5)

    assert b"" == answer.content


async def test_no_proxy_is_taken_from_the_environment(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FaultyServer(None) as proxy, FaultyServer(faults.answers) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        answer = await transport.send(post(server.url), within=5)

    assert 200 == answer.status_code


async def test_a_certificate_is_trusted_only_if_its_signer_is(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)
    trusting = HttpTransport(
        ConnectionPool(ssl_context=ssl.create_default_context(cafile=certified))
    )
    strict = HttpTransport(ConnectionPool())
    async with FaultyServer(faults.answers, tls=faults.tls_server(certified)) as server:
        answer = await trusting.send(post(server.url), within=5)
        error = await failure(strict, post(server.url))
        await trusting.aclose()
        await strict.aclose()

    assert 200 == answer.status_code
    assert (NotSent, "connect_error") == (type(error), error.reason)
    assert error.detail.startswith("SSLCertVerificationError 127.0.0.1:")
    assert 1 == len(server.requests)


async def test_two_hundred_at_once_share_the_connections(transport: HttpTransport) -> None:
    async with FaultyServer(faults.answers) as server:
        answers = await asyncio.gather(
            *[
                transport.send(Request("POST", server.url, json=number), within=10)
                for number in range(200)
            ]
        )

    assert [200] * 200 == [answer.status_code for answer in answers]
    assert {b"%d" % number for number in range(200)} == set(server.requests)
    assert 200 == len(server.requests)
    assert server.connections <= 100


async def test_a_respx_router_answers_in_place_of_the_network(
    respx_mock: respx.MockRouter,
) -> None:
    route = respx_mock.post(VENDOR).respond(json={"ok": True})

    answer = await mocked(respx_mock).send(Request("POST", VENDOR, json={"to": 1}), within=5)

    assert {"ok": True} == answer.json()
    assert b'{"to":1}' == route.calls.last.request.content


@pytest.mark.parametrize("size", [10, 11])
async def test_what_any_transport_streams_is_read_up_to_the_limit(size: int) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"."

    def streams(request: Request) -> Response:
        return Response(200, content=body())

    transport: Transport = HttpTransport(httpx.MockTransport(streams), max_body=10)

    if size > 10:
        error = await failure(transport, post(VENDOR))

        assert (Lost, "protocol_error") == (type(error), error.reason)
    else:
        answer = await transport.send(post(VENDOR), within=5)

        assert b"." * 10 == answer.content


# --- Ends ---------------------------------------------------------------------------------------


async def test_a_cancelled_call_ends_and_gives_its_turn_back() -> None:
    transport = HttpTransport(ConnectionPool(limit=1))
    async with FaultyServer(faults.never_answers) as silent, FaultyServer(faults.answers) as other:
        call = asyncio.create_task(transport.send(post(silent.url), within=5))
        await silent.seen.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        answer = await transport.send(post(other.url), within=5)
        await transport.aclose()

    assert 200 == answer.status_code


async def test_closing_ends_what_is_under_way_and_refuses_what_comes() -> None:
    transport = HttpTransport(ConnectionPool(limit=1))
    async with FaultyServer(faults.never_answers) as server:
        sent = asyncio.create_task(failure(transport, post(server.url)))
        await server.seen.wait()
        queued = asyncio.create_task(failure(transport, post(server.url)))
        await asyncio.sleep(0)
        await transport.aclose()
        later = await failure(transport, post(server.url))

    assert (Lost, "protocol_error") == (type(await sent), (await sent).reason)
    assert (NotSent, "connect_error") == (type(await queued), (await queued).reason)
    assert (NotSent, "connect_error") == (type(later), later.reason)
    assert 1 == len(server.requests)


async def test_closing_during_a_name_lookup_is_not_sent_and_no_cancellation(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def slow(*args: object, **kwargs: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", slow)
    call = asyncio.create_task(failure(transport, post("http://vendor.test")))
    await asked.wait()
    await transport.aclose()
    error = await call

    assert (NotSent, "connect_error") == (type(error), error.reason)


async def test_closing_leaves_nothing_open(tmp_path: Path) -> None:
    certified = faults.certificate(tmp_path)
    trust = ssl.create_default_context(cafile=certified)
    async with FaultyServer(faults.answers, tls=faults.tls_server(certified)) as server:
        transport = HttpTransport(ConnectionPool(ssl_context=trust))
        await asyncio.gather(*[transport.send(post(server.url), within=5) for _ in range(5)])
        await transport.aclose()
        del transport
        gc.collect()  # a ResourceWarning fails the test

    assert 5 == len(server.requests)


async def test_a_transport_that_was_never_used_closes_too() -> None:
    await HttpTransport(ConnectionPool()).aclose()


# --- Secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        None,
        faults.closes_after_request,
        faults.resets_after_request,
        faults.talks_garbage,
        faults.half_a_body,
        faults.never_answers,
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_error_tells_what_was_sent_or_where_to(
    transport: HttpTransport, fault: Fault | None, scheme: str
) -> None:
    async with FaultyServer(fault) as server:
        url = f"{scheme}://{SECRET}:{SECRET}@127.0.0.1:{server.port}"
        error = await failure(transport, post(url), within=0.3)

    shown = "".join(traceback.format_exception(error))

    assert error.detail.endswith(f"127.0.0.1:{server.port}")
    assert SECRET not in f"{error} {error!r} {shown}"
    assert error.__cause__ is None
    assert error.__context__ is None


# --- Tokens -------------------------------------------------------------------------------------


class TokenAuth(Auth):
    """Fetches a token before the request, and a new one when it is refused."""

    def __init__(self, url: str = TOKENS) -> None:
        self._url = url

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        for _ in range(2):
            answer = yield Request("POST", self._url, content=b"token please")
            if answer.status_code == 403:
                return
            request.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            answer = yield request
            if answer.status_code not in {401, 503}:
                return


async def test_a_token_is_fetched_first(transport: HttpTransport) -> None:
    async def hands_out_tokens(
        server: FaultyServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await server.receive(reader)
            writer.write(faults.response(b'{"token":"t1"}'))

    async with FaultyServer(hands_out_tokens) as tokens, FaultyServer(faults.answers) as server:
        request = post(server.url)
        answer = await transport.send(request, within=5, auth=TokenAuth(tokens.url))

    assert ANSWER == answer.content
    assert request is answer.request
    assert [b"token please"] == tokens.requests
    assert "Authorization: Bearer t1" in server.heads[0].splitlines()
    assert 1 == len(server.requests)


async def test_a_token_that_ran_out_is_fetched_again(respx_mock: respx.MockRouter) -> None:
    respx_mock.post(TOKENS).side_effect = [
        Response(200, json={"token": "old"}),
        Response(200, json={"token": "new"}),
    ]
    send = respx_mock.post(VENDOR)
    send.side_effect = [Response(401), Response(200)]

    answer = await mocked(respx_mock).send(Request("POST", VENDOR), within=5, auth=TokenAuth())

    assert 200 == answer.status_code
    assert "Bearer new" == send.calls.last.request.headers["authorization"]


BAD_TOKENS = [
    (httpx.ConnectError, "auth_connect_error"),
    (httpx.ReadTimeout, "auth_read_timeout"),
    (httpx.RemoteProtocolError, "auth_protocol_error"),
    (Response(200, json={"no": "token"}), "auth_error"),
    (Response(500, text="<html>"), "auth_error"),
    (Response(403), "auth_refused"),
]


@pytest.mark.parametrize(("answer", "reason"), BAD_TOKENS)
async def test_without_a_token_nothing_is_sent(
    answer: Response | type[Exception], reason: str
) -> None:
    router = respx.MockRouter(assert_all_called=False)
    router.post(TOKENS).side_effect = [answer]
    send = router.post(VENDOR).respond(200)

    with pytest.raises(NotSent) as caught:
        await mocked(router).send(post(VENDOR), within=5, auth=TokenAuth())

    assert reason == caught.value.reason
    assert caught.value.__context__ is None
    assert not send.called


async def test_a_token_that_takes_all_the_time_is_not_sent(transport: HttpTransport) -> None:
    async with (
        FaultyServer(faults.never_answers) as tokens,
        FaultyServer(faults.answers) as server,
    ):
        with pytest.raises(NotSent) as caught:
            await transport.send(post(server.url), within=0.2, auth=TokenAuth(tokens.url))

    assert "auth_timeout" == caught.value.reason
    assert [] == server.requests


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotSent), (503, Lost)],  # a 401 did nothing; what a 503 did, nobody knows
)
@pytest.mark.parametrize(
    ("second", "reason"),
    [(httpx.ConnectError, "auth_connect_error"), (Response(200, json={}), "auth_error")],
)
async def test_a_second_token_that_fails_does_not_make_the_first_try_unsent(
    respx_mock: respx.MockRouter,
    status: int,
    kind: type[TransportError],
    second: Response | type[Exception],
    reason: str,
) -> None:
    respx_mock.post(TOKENS).side_effect = [Response(200, json={"token": "old"}), second]
    respx_mock.post(VENDOR).respond(status)

    with pytest.raises(TransportError) as caught:
        await mocked(respx_mock).send(Request("POST", VENDOR), within=5, auth=TokenAuth())

    assert (kind, reason) == (type(caught.value), caught.value.reason)


async def test_a_refused_second_token_leaves_the_vendors_answer(
    respx_mock: respx.MockRouter,
) -> None:
    tokens = respx_mock.post(TOKENS)
    tokens.side_effect = [Response(200, json={"token": "old"}), Response(403, text="not you")]
    respx_mock.post(VENDOR).respond(401, text="who?")

    answer = await mocked(respx_mock).send(Request("POST", VENDOR), within=5, auth=TokenAuth())

    assert "who?" == answer.text


async def test_a_signed_copy_of_the_request_is_the_request() -> None:
    class Signs(Auth):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield Request("POST", request.url.copy_merge_params({"signature": "x"}))

    def lost(request: Request) -> Response:
        raise httpx.ReadError("lost")

    with pytest.raises(Lost) as caught:
        await HttpTransport(httpx.MockTransport(lost)).send(post(VENDOR), within=5, auth=Signs())

    assert "read_error" == caught.value.reason


async def test_a_flow_may_say_itself_that_nothing_is_to_be_sent() -> None:
    class Declines(Auth):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            raise NotSent("auth_locked")
            yield request

    with pytest.raises(NotSent) as caught:
        await mocked(respx.MockRouter()).send(post(VENDOR), within=5, auth=Declines())

    assert "auth_locked" == caught.value.reason


async def test_a_flow_that_is_broken_off_is_closed_at_once(respx_mock: respx.MockRouter) -> None:
    class Locks(Auth):
        locked = False

        async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Response]:
            self.locked = True
            try:
                yield Request("POST", TOKENS)
            finally:
                self.locked = False

    respx_mock.post(TOKENS).side_effect = httpx.ConnectError
    auth = Locks()

    with pytest.raises(NotSent):
        await mocked(respx_mock).send(post(VENDOR), within=5, auth=auth)

    assert not auth.locked


class AsksFirst(Auth):
    """Asks whether the request may be sent, and sends a copy that carries the answer."""

    def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        answer = yield Request("POST", TOKENS, content=b"may I?")
        if answer.status_code == 403:
            raise Answered(answer)
        answer = yield Request("POST", request.url, content=answer.content + request.content)
        if answer.status_code == 403:
            raise Answered(answer)


async def test_a_question_answered_with_no_is_the_answer_and_nothing_is_sent() -> None:
    router = respx.MockRouter(assert_all_called=False)
    router.post(TOKENS).respond(403, text="no")
    send = router.post(VENDOR).respond(200)

    answer = await mocked(router).send(Request("POST", VENDOR), within=5, auth=AsksFirst())

    assert (403, "no") == (answer.status_code, answer.text)
    assert not send.called


async def test_a_question_answered_with_yes_is_followed_by_the_request(
    respx_mock: respx.MockRouter,
) -> None:
    respx_mock.post(TOKENS).respond(200, text="yes ")
    send = respx_mock.post(VENDOR).respond(200, text="sent")
    request = Request("POST", VENDOR, content=b"please")

    answer = await mocked(respx_mock).send(request, within=5, auth=AsksFirst())

    assert "sent" == answer.text
    assert b"yes please" == send.calls.last.request.content


@pytest.mark.parametrize(
    ("error", "reason"),
    [(httpx.ConnectError, "auth_connect_error"), (httpx.ReadTimeout, "auth_read_timeout")],
)
async def test_a_question_without_an_answer_is_not_sent(
    error: type[Exception], reason: str
) -> None:
    router = respx.MockRouter(assert_all_called=False)
    router.post(TOKENS).side_effect = error
    send = router.post(VENDOR).respond(200)

    with pytest.raises(NotSent) as caught:
        await mocked(router).send(Request("POST", VENDOR), within=5, auth=AsksFirst())

    assert reason == caught.value.reason
    assert not send.called


async def test_after_the_request_no_other_answer_counts(respx_mock: respx.MockRouter) -> None:
    respx_mock.post(TOKENS).respond(200)
    respx_mock.post(VENDOR).respond(403)

    with pytest.raises(Lost) as caught:
        await mocked(respx_mock).send(Request("POST", VENDOR), within=5, auth=AsksFirst())

    assert "auth_error" == caught.value.reason
    assert caught.value.__context__ is None


async def test_a_copy_that_finds_no_connection_in_time_is_not_sent(
    transport: HttpTransport,
) -> None:
    class Copies(Auth):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield Request("POST", request.url, content=b"copy")

    async with FaultyServer(faults.never_answers) as server:
        request = Request("POST", f"https://127.0.0.1:{server.port}")  # TCP stands, TLS hangs
        with pytest.raises(TransportError) as caught:
            await transport.send(request, within=0.1, auth=Copies())

    assert (NotSent, "connect_timeout") == (type(caught.value), caught.value.reason)


async def test_a_copy_that_is_never_answered_is_lost(transport: HttpTransport) -> None:
    class Copies(Auth):
        def auth_flow(self, request: Request) -> Generator[Request, Response, None]:
            yield Request("POST", request.url, content=b"copy")

    async with FaultyServer(faults.never_answers) as server:
        with pytest.raises(TransportError) as caught:
            await transport.send(post(server.url), within=0.5, auth=Copies())

    assert (Lost, "timeout") == (type(caught.value), caught.value.reason)
    assert [b"copy"] == server.requests
