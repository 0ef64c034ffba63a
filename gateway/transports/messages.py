"""What is said over a connection: a request as bytes, an answer as a response that is read."""

import zlib

import httpx
from httpx import Headers

from gateway.ports import Request, Response
from gateway.transports.connection import Fields, TooLarge, Unusable

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


def outgoing(request: Request, content: bytes) -> bytes:
    """Request line, headers and body. Raises LocalProtocolError: a line break in a header."""
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
    if content or request.method not in _BODILESS:
        lines.append(b"Content-Length: %d" % len(content))
    head = b"".join(lines)
    if b"\n" in head or b"\r" in head or b"\0" in head:
        raise httpx.LocalProtocolError("a line break in a header", request=request)
    lines.append(b"\r\n" + content)
    return b"\r\n".join(lines)


class Incoming(httpx.Response):
    """A response that arrives read. Its headers are put in order for whom reads them: most answers
    are a status and a body. (`httpx.Response(content=…)` says the same for 20 µs more.)
    """

    def __init__(self, status: int, fields: Fields, body: bytes, request: Request) -> None:
        super().__init__(status, stream=_NOTHING, request=request)
        self._fields: Fields | None = fields
        self._content = body
        self.is_closed = self.is_stream_consumed = True

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
