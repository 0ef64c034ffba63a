"""An HTTP server on 127.0.0.1 that misbehaves in one chosen way and counts what it was sent.

A fault is the life of one connection: it receives as many requests as it likes and answers as it
likes; when it returns, the connection is closed. New faults are new functions here.
"""

import asyncio
import gzip
import socket
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ANSWER = b'{"ok":true}'


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole response with its Content-Length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def zipped(body: bytes) -> bytes:
    """The same at any time of day: gzip notes it down."""
    return gzip.compress(body, mtime=0)


class FaultyServer:
    """Serves `fault` while entered, on a free port; without a fault the port is closed.

    `requests`: the bodies received to their last byte, whatever became of them. `heads`: their
    request lines and headers. `seen`: set with the first. `connections`: how many were accepted.
    """

    def __init__(self, fault: "Fault | None", *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.heads: list[str] = []
        self.seen = asyncio.Event()
        self.connections = 0
        self._fault = fault
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        if self._fault is None:
            self._server.close()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Shuts all connections down at once, before any client's event loop can notice."""
        for writer in self._writers:
            descriptor = writer.get_extra_info("socket").fileno()
            with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    async def receive(self, reader: StreamReader) -> None:
        """Reads and counts one request. Raises IncompleteReadError when there is none."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (
                int(line[15:])
                for line in head.lower().splitlines()
                if line[:15] == "content-length:"
            ),
            0,
        )
        self.requests.append(await reader.readexactly(length))
        self.heads.append(head)
        self.seen.set()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        assert self._fault is not None
        self._writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._fault(self, reader, writer)
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


Fault = Callable[[FaultyServer, StreamReader, StreamWriter], Awaitable[None]]


async def answers(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """No fault: 200 OK to everything, connection kept."""
    while True:
        await server.receive(reader)
        writer.write(response(ANSWER, "Content-Type: application/json"))


async def zips(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """No fault: the answer is compressed and chunked."""
    await server.receive(reader)
    body = gzip.compress(ANSWER)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


async def redirects(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Sends the client elsewhere, with a cookie."""
    while True:
        await server.receive(reader)
        headers = ("Location: /elsewhere", "Set-Cookie: a=b")
        writer.write(response(b"", *headers, status="307 Temporary Redirect"))


async def closes_at_once(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Accepts and hangs up."""


async def talks_first(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Speaks before it is asked: to a TLS client, plain text where a handshake should be."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def closes_after_request(
    server: FaultyServer, reader: StreamReader, writer: StreamWriter
) -> None:
    """Takes the request and hangs up: it may well have acted on it."""
    await server.receive(reader)


async def resets_after_request(
    server: FaultyServer, reader: StreamReader, writer: StreamWriter
) -> None:
    """The same, with RST instead of FIN."""
    await server.receive(reader)
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def half_a_head(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Hangs up within the headers."""
    await server.receive(reader)
    writer.write(response(ANSWER)[:30])


async def half_a_body(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Hangs up within the body."""
    await server.receive(reader)
    writer.write(response(ANSWER)[:-4])


async def half_a_body_and_silence(
    server: FaultyServer, reader: StreamReader, writer: StreamWriter
) -> None:
    """Stops within the body and keeps the connection."""
    await server.receive(reader)
    writer.write(response(ANSWER)[:-4])
    await reader.read()


async def never_answers(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Takes the request and says nothing until the client gives up; also hangs a handshake."""
    await server.receive(reader)
    await reader.read()


async def drips(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """One byte of body every 20 ms, without end."""
    await server.receive(reader)
    writer.write(response(b"", "Content-Type: text/plain").replace(b": 0\r", b": 1000000\r"))
    while not reader.at_eof():
        writer.write(b".")
        await asyncio.sleep(0.02)


async def talks_garbage(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Answers in something that is not HTTP."""
    await server.receive(reader)
    writer.write(b"\x15\x03\x01 no such protocol\r\n\r\n")


async def unzippable(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Says gzip and sends something else."""
    await server.receive(reader)
    writer.write(response(b"plain as day", "Content-Encoding: gzip"))


async def talks_too_much(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """A body of 300 KiB."""
    await server.receive(reader)
    writer.write(response(b"." * 300 * 1024))


async def zips_a_bomb(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """16 MiB in 16 KiB."""
    await server.receive(reader)
    writer.write(response(gzip.compress(bytes(16 << 20)), "Content-Encoding: gzip"))


async def answers_once(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Answers, keeps the connection, and hangs up on the next request after taking it."""
    await server.receive(reader)
    writer.write(response(ANSWER))
    await server.receive(reader)


async def speaks_unasked(server: FaultyServer, reader: StreamReader, writer: StreamWriter) -> None:
    """Answers, and a moment later once more."""
    while True:
        await server.receive(reader)
        writer.write(response(ANSWER))
        await asyncio.sleep(0.02)
        writer.write(response(b"whose answer is this?"))


async def answers_and_leaves(
    server: FaultyServer, reader: StreamReader, writer: StreamWriter
) -> None:
    """Answers as if it kept the connection, and closes it."""
    await server.receive(reader)
    writer.write(response(ANSWER))


def certificate(folder: Path) -> Path:
    """A new self-signed certificate for 127.0.0.1 with its key: `folder`/server.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "faults")])
    start = datetime.now(UTC) - timedelta(hours=1)  # noqa: TID251 (the real clock checks it)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls_server(certified: Path) -> ssl.SSLContext:
    """A server's context with the certificate and key in `certified`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified)
    return context
