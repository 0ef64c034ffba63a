"""Requests as bytes, and bodies as they were before they were encoded."""

import zlib

import httpx
import pytest
from transports.faults import zipped

from gateway.ports import Endpoint, Request
from gateway.transports.connection import TooLarge
from gateway.transports.messages import Undecodable, incoming, outgoing

MOST = 1000
TEXT = b"one and two"
URL = "http://vendor.test:81/send?key=1"


def bare(method: str, body: bytes, **headers: str) -> Request:
    """A request without the headers that httpx adds."""
    request = Request(method, URL, headers=headers, stream=httpx.ByteStream(body))
    request.read()
    return request


def lines(request: Request) -> list[str]:
    head, _, body = outgoing(request, request.content)[0].partition(b"\r\n\r\n")
    assert request.content == body
    return head.decode().split("\r\n")


def test_a_bare_request_says_what_http_asks_for() -> None:
    assert [
        "POST /send?key=1 HTTP/1.1",
        "Host: vendor.test:81",
        "Accept: */*",
        "Accept-Encoding: identity",
        "User-Agent: otp-gateway",
        "Content-Length: 2",
    ] == lines(bare("POST", b"{}"))


def test_what_a_provider_says_is_not_said_again() -> None:
    told = {"HOST": "other", "Accept": "a", "accept-encoding": "b", "User-Agent": "c", "X": "d"}
    expected = ["GET /send?key=1 HTTP/1.1", *(f"{name}: {text}" for name, text in told.items())]

    assert expected == lines(bare("GET", b"", **told))


@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("GET", b"x"), ("DELETE", b"")])
def test_how_long_a_body_is_stands_in_the_head_once_and_true(method: str, body: bytes) -> None:
    request = bare(method, body, **{"Content-Length": "7", "transfer-encoding": "chunked"})
    framing = [line for line in lines(request) if line.lower().startswith(("content-l", "transf"))]

    assert [f"Content-Length: {len(body)}"] == framing


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\rb", "a\0b"])
def test_a_line_break_does_not_leave(value: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        outgoing(bare("POST", b"", **{"X-Name": value}), b"")


def test_what_an_endpoints_calls_have_in_common_is_not_mixed_up() -> None:
    """Its head is made once: for calls that nobody has changed, and for no others."""
    pattern = Request("GET", URL, headers={"X-Key": "k"})
    del pattern.headers["host"]
    endpoint = Endpoint(pattern.url, pattern.headers)
    calls = [endpoint.post(body) for body in (b"{}", b"", b"[1,2,3]", b"{}", b"{}")]
    calls[2].headers["traceparent"] = "00-1"
    calls[3].url = httpx.URL("https://other.test/there")
    calls[4].method = "PUT"
    pattern.headers["x-key"] = "changed"
    endpoint.headers["x-key"] = "changed"
    said = [lines(call) for call in calls]
    origins = [outgoing(call, call.content)[1] for call in calls]

    assert [["X-Key: k"]] * 5 == [
        [line for line in head if line.lower().startswith("x-key")] for head in said
    ]
    assert ["2", "0", "7", "2", "2"] == [head[-1].removeprefix("Content-Length: ") for head in said]
    assert [2] == [at for at, head in enumerate(said) if "traceparent: 00-1" in head]
    assert [
        *["POST /send?key=1 HTTP/1.1"] * 3,
        "POST /there HTTP/1.1",
        "PUT /send?key=1 HTTP/1.1",
    ] == [head[0] for head in said]
    vendor = (b"http", b"vendor.test", 81)
    assert [vendor, vendor, vendor, (b"https", b"other.test", None), vendor] == origins
    assert calls[0].read() == b"".join(calls[0].stream)  # type: ignore[arg-type]


def test_an_endpoint_that_breaks_a_line_sends_nothing_ever() -> None:
    endpoint = Endpoint(httpx.URL(URL), httpx.Headers({"X-Name": "a\r\nX: b"}))
    for _ in range(2):
        with pytest.raises(httpx.LocalProtocolError):
            outgoing(endpoint.post(b""), b"")


def test_an_answer_has_all_that_httpx_gives_its_own() -> None:
    """Incoming sets by itself what httpx's Response would."""
    request = bare("POST", b"")
    own = httpx.Response(200, content=TEXT, headers={"content-type": "text/plain"}, request=request)
    fields = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"11")]
    answer = incoming(200, fields, TEXT, request, MOST)
    made_by_reading = {"_decoder", "_num_bytes_downloaded"}
    names = set(vars(own)) - {"headers", "stream"} - made_by_reading

    assert {name: getattr(own, name) for name in names} == {
        name: getattr(answer, name) for name in names
    }
    assert (own.headers, own.text, own.request) == (answer.headers, answer.text, answer.request)
    assert [own.content] == list(answer.iter_bytes())
    assert (own.is_success, 0) == (answer.is_success, answer.num_bytes_downloaded)


def deflated(data: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


def received(encoding: str, body: bytes) -> httpx.Response:
    fields = [(b"Content-Encoding", encoding.encode()), (b"Transfer-Encoding", b"chunked")]
    return incoming(200, fields, body, bare("POST", b""), MOST)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", zipped(TEXT)),
        ("GZip ", zipped(TEXT)),
        ("x-gzip", zipped(TEXT)),
        ("gzip", zipped(TEXT[:5]) + zipped(TEXT[5:])),
        ("deflate", deflated(TEXT, zlib.MAX_WBITS)),
        ("deflate", deflated(TEXT, -zlib.MAX_WBITS)),
        ("identity", TEXT),
        ("utf-8", TEXT),  # no encoding at all: the server's mistake
        ("", TEXT),
    ],
)
def test_a_body_is_read_as_it_was(encoding: str, body: bytes) -> None:
    answer = received(encoding, body)

    assert TEXT == answer.content == answer.read()
    assert {"content-length": str(len(TEXT))} == dict(answer.headers)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_no_body_needs_no_decoding(encoding: str) -> None:
    assert b"" == received(encoding, b"").content


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("gzip", b"plain", Undecodable),
        ("gzip", zipped(TEXT)[:-1], Undecodable),
        ("gzip", zipped(TEXT) + b"more", Undecodable),
        ("deflate", b"plain", Undecodable),
        ("br", b"plain", Undecodable),
        ("zstd", b"plain", Undecodable),
        ("gzip", zipped(bytes(MOST + 1)), TooLarge),
        ("gzip", zipped(bytes(16 << 20)), TooLarge),
        ("gzip", zipped(bytes(MOST)) + zipped(b"."), TooLarge),
    ],
)
def test_a_body_that_cannot_be_read_is_no_answer(
    encoding: str, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        received(encoding, body)


def test_a_body_as_long_as_it_may_be() -> None:
    assert MOST == len(received("gzip", zipped(bytes(MOST))).content)


def test_headers_are_there_for_whom_reads_them_and_can_be_replaced() -> None:
    answer = incoming(429, [(b"Retry-After", b"5")], b"{}", bare("POST", b""), MOST)

    assert ("5", "2") == (answer.headers["retry-after"], answer.headers["content-length"])
    assert "utf-8" == answer.encoding
    answer.headers = httpx.Headers({"x": "y"})
    assert {"x": "y"} == dict(answer.headers)
