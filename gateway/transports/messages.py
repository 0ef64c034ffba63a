"""What is said over a connection: a request as bytes, an answer as a response that is read."""

import zlib
from typing import cast

import httpx
from httpx import Headers

from gateway.ports import Post, Request, Response
from gateway.transports.connection import Fields, TooLarge, Unusable

Origin = tuple[bytes, bytes, int | None]  # scheme, host, port: what shares connections

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_OUTDATED = _FRAMING | {b"content-encoding"}  # no longer true of a body that is read and decoded
_NOTHING = httpx.ByteStream(b"")
_BODILESS = frozenset({"GET", "HEAD"})
_GZIP = frozenset({b"gzip", b"x-gzip"})
_UNREADABLE = frozenset({b"br", b"zstd", b"compress"})

# What stands in a head when the provider does not say otherwise.
_DEFAULTS = (
    (b"accept", b"Accept: */*"),
    (b"accept-encoding", b"Accept-Encoding: identity"),  # answers are short
    (b"user-agent", b"User-Agent: otp-gateway"),
)


class Undecodable(Unusable):
    """The body is not what Content-Encoding says, or nothing we can read."""


def outgoing(request: Request, content: bytes) -> tuple[bytes, Origin]:
    """Request line, headers and body, and whom they are for. Raises LocalProtocolError: a line
    break in a header.

    What an endpoint's calls have in common is made by the first of them.
    """
    endpoint = request.endpoint if isinstance(request, Post) else None
    if endpoint is None:
        head, origin = _head(request)
        if not content and request.method in _BODILESS:
            return head + b"\r\n\r\n", origin
    elif endpoint.prepared is None:
        head, origin = endpoint.prepared = _head(request)
    else:
        head, origin = cast("tuple[bytes, Origin]", endpoint.prepared)
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(content), content), origin


def _head(request: Request) -> tuple[bytes, Origin]:
    """All that stands before the size of the body, and whom it is for."""
    url = request.url
    fields = request.headers.raw
    given = {name.lower() for name, _ in fields}
    if not _FRAMING.isdisjoint(given):  # how the body is framed is ours to say
        fields = [pair for pair in fields if pair[0].lower() not in _FRAMING]
    lines = [request.method.encode("ascii") + b" " + url.raw_path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in fields]
    if b"host" not in given:
        lines.append(b"Host: " + url.netloc)
    for name, line in _DEFAULTS:
        if name not in given:
            lines.append(line)
    joined = b"".join(lines)
    if b"\n" in joined or b"\r" in joined or b"\0" in joined:
        raise httpx.LocalProtocolError("a line break in a header", request=request)
    return b"\r\n".join(lines), (url.raw_scheme, url.raw_host, url.port)


class Incoming(httpx.Response):
    """A response that arrives read. Its headers are put in order for whom reads them: most answers
    are a status and a body. (`httpx.Response(content=…)` says the same for 20 µs more, so that what
    it would set is set here, and what is the same for all once.)
    """

    content = b""  # where httpx has properties: attributes are read at a tenth of their price
    stream = _NOTHING
    is_closed = is_stream_consumed = True
    next_request = None
    default_encoding = "utf-8"
    _num_bytes_downloaded = 0

    def __init__(self, status: int, fields: Fields, body: bytes, request: Request) -> None:
        self.status_code = status
        self.content = self._content = body
        self._fields: Fields | None = fields
        self._request = request
        self.extensions = {}
        self.history = []

    @property
    def headers(self) -> Headers:
        """As they came, except for what the body is no longer: chunked or compressed."""
        if self._fields is not None:
            kept = [pair for pair in self._fields if pair[0].lower() not in _OUTDATED]
            kept.append((b"Content-Length", b"%d" % len(self._content)))
            self._fields, self._headers = None, Headers(kept)
        return self._headers

    @headers.setter
    def headers(self, headers: Headers) -> None:
        self._fields, self._headers = None, headers


def incoming(status: int, fields: Fields, body: bytes, request: Request, most: int) -> Response:
    """The response, its body decoded to no more than `most` bytes. Raises Unusable."""
    for name, value in fields:
        if len(name) == 16 and name.lower() == b"content-encoding":  # the shortest way past others
            body = _decoded(value.strip().lower(), body, most)
    return Incoming(status, fields, body, request)


def _decoded(encoding: bytes, body: bytes, most: int) -> bytes:
    """The body as it was before Content-Encoding (RFC 9110, 8.4). An encoding that nobody has
    heard of is a server's mistake, and the body left as it is.
    """
    if encoding in _UNREADABLE:
        raise Undecodable
    if encoding in _GZIP:
        window = 16 + zlib.MAX_WBITS
    elif encoding == b"deflate":  # with zlib's two bytes before it, or, wrongly, without
        window = zlib.MAX_WBITS if body[:1] and body[0] & 15 == 8 else -zlib.MAX_WBITS
    else:
        return body
    plain = b""
    while body:  # gzip may come in several parts
        part = zlib.decompressobj(window)
        try:
            plain += part.decompress(body, most + 1 - len(plain))
        except zlib.error:
            raise Undecodable from None
        if len(plain) > most:
            raise TooLarge
        if not part.eof:
            raise Undecodable
        body = part.unused_data
    return plain
