"""The floor: a bare Starlette application that parses a send's JSON and echoes it. No store, no
provider; what it costs is the web server's own share of every request."""

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def ready(request: Request) -> Response:
    return Response(b"ok")


async def send(request: Request) -> Response:
    body = orjson.loads(await request.body())
    return Response(orjson.dumps(body), media_type="application/json")


app = Starlette(
    routes=[Route("/", ready, methods=["GET"]), Route("/otp/send", send, methods=["POST"])]
)
