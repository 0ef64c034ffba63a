"""Requests as values: a definition's template, filled for one account and one message."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from gateway.domain.declared import bodies, template
from gateway.domain.declared.definition import Definition
from gateway.domain.declared.parts import Call
from gateway.domain.declared.schemes import Scheme
from gateway.domain.declared.template import Variables


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """A definition with what a route adds to it."""

    declared: Definition
    values: Mapping[str, str]
    secrets: Mapping[str, str]
    own_base: str | None  # in place of the definition's base_url

    @property
    def constants(self) -> dict[str, object]:
        """The variables that every message has."""
        secrets = {f"secret.{name}": secret for name, secret in self.secrets.items()}
        return {**self.declared.values, **self.values, **secrets}

    @property
    def base(self) -> str:
        """What every path is put behind."""
        return (self.own_base or self.declared.base_url.line(self.constants)).rstrip("/")

    @property
    def secret(self) -> str:
        """By which requests prove us; "" where they do not."""
        return self.secrets.get(self.declared.auth.secret, "")

    @property
    def user(self) -> str:
        """The name that goes with it."""
        return self.declared.auth.user.line(self.constants)

    def credentials(self) -> dict[str, str]:
        """The headers by which every request proves us."""
        rule = self.declared.auth
        match rule.kind:
            case Scheme.BASIC:
                return {"authorization": basic(self.user, self.secret)}
            case Scheme.BEARER:
                return {"authorization": f"Bearer {self.secret}"}
            case Scheme.HEADER:
                return {rule.name.lower(): rule.prefix + self.secret}
        return {}


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """A request, in no library's words."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes


class Writer:
    """One kind of request of an account. What no message changes is put together once."""

    def __init__(self, account: Account, call: Call) -> None:
        auth = account.declared.auth
        self.names = call.names
        self._call = call
        self._base = account.base
        self._constants = account.constants
        self._fixed = {"content-type": bodies.CONTENT_TYPES[call.content]} if call.body else {}
        self._fixed |= account.credentials()
        self._asked = {auth.name: account.secret} if auth.kind is Scheme.QUERY else {}

    def write(self, said: Variables) -> Written:
        """The request that says this."""
        call, variables = self._call, {**self._constants, **said}
        content = bodies.write(call.content, _table(call.body, variables)) if call.body else b""
        headers = {name.lower(): one.line(variables) for name, one in call.headers.items()}
        return Written(call.method, self._url(variables), {**self._fixed, **headers}, content)

    def follow_up(self, attempt_id: str, reference: str | None) -> Written | None:
        """About a message that was sent; None when there is nothing to name it by."""
        if "reference" in self.names and reference is None:
            return None
        return self.write({"attempt_id": attempt_id, "reference": reference})

    def _url(self, variables: Variables) -> str:
        path = self._call.path
        named = {name: variables.get(name) for name in path.names}
        quoted = {
            name: quote(str(value), safe="") for name, value in named.items() if value is not None
        }
        query = bodies.query({**_table(self._call.query, variables), **self._asked})
        return self._base + path.line(quoted) + (f"?{query}" if query else "")


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _table(tree: Mapping[str, template.Tree], variables: Variables) -> dict[str, object]:
    filled = template.fill(tree, variables)
    return filled if isinstance(filled, dict) else {}
