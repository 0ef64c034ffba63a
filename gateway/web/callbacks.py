"""Receipts come in: raw bytes to the service, an empty 2xx back once they are stored.

Octopush asks for an answer within a second and without a byte of body; every other provider is
content with the same. A 401 leaves nothing behind; a 503 asks the provider to come again.
"""

from collections.abc import Iterator, Mapping, Sequence

from gateway.domain.errors import NotFound
from gateway.ports import CALLBACK_LIMIT, Callback
from gateway.services import receive
from gateway.services.runtime import Runtime
from gateway.web.edge import Call, Methods
from gateway.web.errors import Answer

STORED = Answer(200)


class Callbacks:
    """/otp/delivered, over one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def calls(self) -> dict[str, Methods]:
        """Without a name there must be a single route to mean."""
        return {"/otp/delivered": {"GET": self.delivered, "POST": self.delivered}}

    def below(self) -> dict[str, Methods]:
        """A route's own URL, with or without key: /otp/delivered/{route}/{key}."""
        return {"/otp/delivered/": {"GET": self.delivered, "POST": self.delivered}}

    async def delivered(self, call: Call) -> Answer:
        name, slash, key = call.tail.partition("/")
        if "/" in key:
            raise NotFound("no_such_path", "The path ends after the key.")
        url, raw_query = f"{self._runtime.public_url}{call.path}", call.scope["query_string"]
        if raw_query:
            url = f"{url}?{raw_query.decode('latin-1')}"
        given = key if slash else None
        named = name or self._default()
        runtime = self._runtime_of(named)
        route = runtime.routes.get(named)
        limit = route.callback_limit if route is not None else CALLBACK_LIMIT
        callback = Callback(
            method=call.method,
            url=url,
            key=given,
            headers=Headers(call.scope["headers"]),
            query=dict(call.query()) if raw_query else {},
            body=await call.body(limit),
            received_at=self._runtime.now(),
            attempt_id=receive.token_of(self._runtime, given),
        )
        reply = await receive.receive(runtime, named, callback)
        if reply is None:
            return STORED
        return Answer(reply.status, reply.body, reply.content_type.encode())

    def _runtime_of(self, route: str) -> Runtime:
        """The simulated providers of test keys send receipts like any other."""
        test = self._runtime.test
        return test if test is not None and route in test.routes else self._runtime

    def _default(self) -> str:
        """Without a name there must be a single route to mean."""
        names = list(self._runtime.routes)
        if len(names) != 1:
            raise NotFound("unknown_route", "Name the route: /otp/delivered/{route}/{key}.")
        return names[0]


class Headers(Mapping[str, str]):
    """The headers of a callback by their lower-case names; one that came twice is joined so that it
    matches nothing. Read at the first look: not every provider looks.
    """

    __slots__ = ("_raw", "_read")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._read: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._read is None:
            self._read = {}
            for name, text in self._raw:
                key, value = name.decode("latin-1"), text.decode("latin-1")
                self._read[key] = f"{self._read[key]}\n{value}" if key in self._read else value
        return self._read
