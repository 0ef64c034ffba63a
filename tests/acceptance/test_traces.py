"""Spans leave a real process for an OTLP/HTTP collector, and are there when it has stopped."""

import asyncio

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import traces
from gateway.app import process

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector:
    """A collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        self.headers: list[str | None] = []

    async def take(self, request: Request) -> Response:
        self.headers.append(request.headers.get("authorization"))
        self.received.append(ExportTraceServiceRequest.FromString(await _plain(request)))
        return Response(status_code=200, media_type="application/x-protobuf")


async def _plain(request: Request) -> bytes:
    assert "content-encoding" not in request.headers
    return await request.body()


async def test_an_otlp_collector_receives_the_spans_at_the_latest_when_the_gateway_stops() -> None:
    collector = Collector()
    web = Starlette(routes=[Route("/v1/traces", collector.take, methods=["POST"])])
    with process.bind("127.0.0.1", 0) as listening:
        async with process.served(web, listening, grace=1):
            endpoint = f"http://127.0.0.1:{process.port_of(listening)}/v1/traces"
            tracer = traces.exporting(endpoint, {"authorization": "Bearer of-the-collector"})
            span = tracer.begin("otp.send", f"00-{TRACE}-00f067aa0ba902b7-01", {"otp.n": 1})
            span.end("stored")
            await asyncio.to_thread(tracer.close)

    (request,) = collector.received
    (resource,) = request.resource_spans
    (exported,) = resource.scope_spans[0].spans
    told = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert ("otp.send", TRACE) == (exported.name, exported.trace_id.hex())
    assert "otp-gateway" == told["service.name"]
    assert {"service.name", "service.version"} == set(told)
    assert ["Bearer of-the-collector"] == collector.headers
