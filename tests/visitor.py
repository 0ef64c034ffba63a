"""A person at the console, playing a browser without script: cookies, forms, pages read by tag."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx
from argon2 import PasswordHasher
from rig import Rig

from gateway.domain.access import Role
from gateway.services import accounts as logins
from gateway.store.records import Operator

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # the default takes 64 MiB
SAME = {"sec-fetch-site": "same-origin"}


class Text(HTMLParser):
    """What a page says, without its tags; and the fields of its forms."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())


def says(answer: httpx.Response) -> str:
    """The text of a page."""
    return Text(answer.text).text


async def add_operator(rig: Rig, name: str, role: Role) -> Operator:
    """An operator with PASSWORD."""
    return await rig.gateway.desk.read(
        lambda engine: logins.add(
            engine, name, role, PASSWORD, by="shell", now=rig.clock.now(), hasher=CHEAP
        )
    )


class Visitor:
    """One browser."""

    def __init__(self, rig: Rig, name: str = "", url: str = "http://127.0.0.1:8080") -> None:
        self.rig = rig
        self.name = name
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(rig.gateway.web), base_url=url, headers=SAME
        )
        self.pages: list[str] = []  # every page this visitor has seen

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return self._seen(await self.http.get(path, **more))

    async def post(
        self, path: str, form: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """A form as a page of this session would send it."""
        fields = {"token": await self.token()} | (form or {})
        return self._seen(await self.http.post(path, data=fields, **more))

    async def away(self, url: str) -> httpx.Response:
        """The answer of another host, over a real socket and without our cookies."""
        async with httpx.AsyncClient() as outside:
            return await outside.get(url)

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        """The page that a redirect leads to."""
        assert 303 == answer.status_code, answer.text
        return await self.get(answer.headers["location"])

    async def token(self) -> str:
        """The session's token, from a page of ours; empty without a session."""
        page = await self.http.get("/console")
        found = re.search(r'name="token" value="([0-9a-f]{64})"', page.text)
        return found.group(1) if found else ""

    async def login(self, password: str = PASSWORD, **more: str) -> httpx.Response:
        form = {"name": self.name, "password": password, **more}
        return self._seen(await self.http.post("/console/login", data=form))

    async def find(self, text: str) -> httpx.Response:
        """Search, and the page found."""
        return await self.follow(await self.post("/console/search", {"q": text}))

    def _seen(self, answer: httpx.Response) -> httpx.Response:
        self.pages.append(answer.text)
        return answer


async def visitor(rig: Rig, role: Role = Role.SUPPORT, name: str | None = None) -> Visitor:
    """Somebody of that role, logged in."""
    made = Visitor(rig, name or f"{role}-person")
    await add_operator(rig, made.name, role)
    answer = await made.login()
    assert 303 == answer.status_code, answer.text
    return made
