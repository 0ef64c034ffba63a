"""Logging in: password, second factor, session; and what is written down of it.

A refused login never says which part was wrong, and costs the same where there is no such operator.

Over 400 lines: every refusal of a login costs and tells the same, which is seen only with all of
them side by side.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from gateway.domain import access, totp
from gateway.domain.access import Role, Session
from gateway.domain.audit import Act, Entry
from gateway.domain.errors import Conflict, Forbidden, InvalidInput, Unauthenticated
from gateway.domain.identity import uuid7
from gateway.domain.keyring import NONCE_BYTES, Keyring
from gateway.domain.limits import Counter
from gateway.domain.oidc import Person
from gateway.store import accounts, audits
from gateway.store.desk import Desk, writing
from gateway.store.engine import Engine
from gateway.store.records import Operator

ISSUER = "OTP gateway"
DEMO = "demo"  # the operator that `serve` and `demo` make for a run; nobody else may be called so
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)
_AT_ONCE = 2  # passwords being hashed: each takes 64 MiB and a core

HASHER = PasswordHasher()  # argon2id; RFC 9106's second recommended option


@dataclass(frozen=True, slots=True)
class Login:
    """Who is there, by which session; `form_token` has to come back in every form."""

    operator: Operator
    session: Session
    form_token: str

    @property
    def role(self) -> Role:
        return Role(self.operator.role)

    @property
    def name(self) -> str:
        return self.operator.name


class Accounts:
    """Operators' logins."""

    def __init__(
        self,
        desk: Desk,
        keyring: Keyring,
        now: Callable[[], datetime],
        log: Any,
        *,
        hasher: PasswordHasher = HASHER,
    ) -> None:
        self._desk = desk
        self._keyring = keyring
        self._now = now
        self._log = log
        self._hasher = hasher
        self._nobody: str | None = None  # compared with where there is no operator
        self._hashing = asyncio.Semaphore(_AT_ONCE)

    async def login(self, name: str, password: str, code: str, address: str) -> tuple[str, Login]:
        """The secret for the cookie, and the login.

        Raises Unauthenticated `login_refused`, Limited `login_tries_used_up`.
        """
        operator = await self._prove(name, password, code, address, "login")
        secret, now = secrets.token_urlsafe(32), self._now()
        session = access.opened(_digest(secret), operator.id, now)

        async def open_session(engine: Engine) -> Entry:
            await accounts.open_session(engine, session, now)
            return await audits.append(engine, Act(operator.name, "login"), now)

        self._told(await self._desk.write(open_session))
        return secret, Login(operator, session, _form_token(secret))

    async def admit(self, person: Person) -> tuple[str, Login]:
        """The same for somebody whom the identity provider has named: an operator from the first
        login on, of the role that they have there today. Without one, what they have
        open here ends.

        Raises Forbidden `oidc_role`, `oidc_name`, `oidc_disabled`, Conflict `oidc_name_taken`.
        """
        role = person.role
        if role is None:
            await self._turn_out(person)
            raise Forbidden(
                "oidc_role", "You have no role at this console. Ask who manages groups."
            )
        secret, now = secrets.token_urlsafe(32), self._now()
        proven = person.proven_at or now - access.PROOF

        async def work(engine: Engine) -> tuple[Login, list[Entry]]:
            operator, told = await _known(engine, person, role, now)
            session = access.opened(_digest(secret), operator.id, now, proven)
            await accounts.open_session(engine, session, now)
            told.append(await audits.append(engine, Act(operator.name, "login", "oidc"), now))
            return Login(operator, session, _form_token(secret)), told

        login, told = await self._desk.write(work)
        for entry in told:
            self._told(entry)
        return secret, login

    async def prove(self, login: Login, password: str, code: str, address: str) -> None:
        """The password once more, before a dangerous act. Raises as `login` does."""
        await self._prove(login.name, password, code, address, "prove")
        now = self._now()
        session = replace(login.session, seen_at=now, proven_at=now)

        async def touch(engine: Engine) -> Entry:
            await accounts.touch_session(engine, session)
            return await audits.append(engine, Act(login.name, "prove"), now)

        self._told(await self._desk.write(touch))

    async def change_password(
        self, login: Login, password: str, code: str, new: str, address: str
    ) -> tuple[str, Login]:
        """Another password for who knows theirs. All sessions end; the new one's secret and login.

        Raises as `login` does, InvalidInput `password_weak`, `password_elsewhere`.
        """
        _own(login.operator)
        _strong(new, login.name)
        await self._prove(login.name, password, code, address, "password")
        async with self._hashing:
            hashed = await asyncio.to_thread(self._hasher.hash, new)
        secret, now = secrets.token_urlsafe(32), self._now()
        session = access.opened(_digest(secret), login.operator.id, now)

        async def work(engine: Engine) -> Entry:
            current = await accounts.operator_named(engine, login.name) or login.operator
            await accounts.change_operator(engine, replace(current, password=hashed))
            await accounts.open_session(engine, session, now)
            return await audits.append(engine, Act(login.name, "password"), now)

        self._told(await self._desk.write(work))
        return secret, Login(login.operator, session, _form_token(secret))

    async def find(self, secret: str, *, seen: bool = True) -> Login | None:
        """Whose cookie that is, while the session holds and the operator is not disabled.

        `seen`: the person has done something. A page that refreshes itself keeps nobody logged in.
        """
        if not secret:
            return None
        digest = _digest(secret)
        found = await self._desk.read(lambda engine: accounts.session(engine, digest))
        now = self._now()
        if found is None or not found[0].alive(now) or found[1].disabled_at is not None:
            return None
        session, operator = found
        if seen and now - session.seen_at >= access.SEEN_EVERY:
            session = replace(session, seen_at=now)
            await self._desk.write(lambda engine: accounts.touch_session(engine, session))
        return Login(operator, session, _form_token(secret))

    async def logout(self, login: Login) -> None:
        """End the session."""
        now = self._now()

        async def end(engine: Engine) -> Entry:
            await accounts.end_session(engine, login.session)
            return await audits.append(engine, Act(login.name, "logout"), now)

        self._told(await self._desk.write(end))

    async def record(self, act: Act) -> None:
        """Write an act down. Whatever is to be done is done after this."""
        now = self._now()
        self._told(await self._desk.write(lambda engine: audits.append(engine, act, now)))

    async def count_from(self, address: str) -> list[Counter]:
        """One more try to log in from there, of nobody known yet; to be forgotten if it succeeds.
        Raises Limited `login_tries_used_up`."""
        return await self._count({}, address)

    async def forget(self, counted: list[Counter]) -> None:
        """These tries have led to a login."""
        await self._desk.write(lambda engine: accounts.forget_tries(engine, counted))

    async def _turn_out(self, person: Person) -> None:
        """End the sessions of somebody whose role was taken away, if there are any."""
        now = self._now()

        async def work(engine: Engine) -> Entry | None:
            operator = await accounts.operator_of_subject(engine, person.subject)
            if operator is None or not await accounts.end_sessions(engine, operator):
                return None
            return await audits.append(
                engine, Act("oidc", "operator role", f"{operator.name}, none"), now
            )

        entry = await self._desk.write(work)
        if entry is not None:
            self._told(entry)

    async def _prove(
        self, name: str, password: str, code: str, address: str, doing: str
    ) -> Operator:
        key = _key(self._keyring, "name", name)
        counted = await self._count({key: access.TRIES}, address)
        operator = await self._desk.read(lambda engine: accounts.operator_named(engine, name))
        async with self._hashing:
            fits = await asyncio.to_thread(self._fits, operator, password[: access.MOST])
        able = operator is not None and fits and operator.disabled_at is None
        if operator is not None and able and await self._second(operator, code):
            await self.forget(counted)
            return operator
        # What was typed for a name may have been a password: only names there are are kept.
        actor = operator.name if operator is not None else "(unknown)"
        await self.record(Act(actor, f"{doing} refused", what=f"from {address}"))
        raise Unauthenticated("login_refused", "Name, password or code is not right.")

    def _fits(self, operator: Operator | None, password: str) -> bool:
        """Whether the password is the operator's; of nobody, after as long a time."""
        self._nobody = self._nobody or self._hasher.hash(secrets.token_hex(16))
        known = operator.password if operator is not None and operator.password else self._nobody
        try:
            return self._hasher.verify(known, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _second(self, operator: Operator, code: str) -> bool:
        """Whether the second factor is right and was never used; True where there is none."""
        if operator.totp_sealed is None or operator.totp_key_id is None:
            return True
        secret = self._keyring.open(
            operator.totp_key_id, operator.totp_sealed, owner=_owner(operator.id)
        )
        step = totp.match(secret, code, self._now(), operator.totp_step)
        if step is None:
            return False
        return await self._desk.write(lambda engine: accounts.use_step(engine, operator, step))

    async def _count(self, most: dict[bytes, int], address: str) -> list[Counter]:
        """One more try of each, and from the address. Raises Limited."""
        now = self._now()
        most = {**most, _key(self._keyring, "address", address): access.TRIES_FROM}

        async def count(engine: Engine) -> list[Counter]:
            before = await accounts.tries(engine, list(most))
            counted = [access.tried(before.get(key), key, most[key], now) for key in most]
            await accounts.count_tries(engine, counted, before)
            return counted

        return await self._desk.write(count)

    def _told(self, entry: Entry) -> None:
        """Into the log as well: a head of the chain that lies elsewhere."""
        self._log.info(
            "audit",
            sequence=entry.sequence,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            digest=entry.digest.hex(),
        )


async def _known(
    engine: Engine, person: Person, role: Role, now: datetime
) -> tuple[Operator, list[Entry]]:
    """The operator that the identity provider means, new or of another role where need be."""
    found = await accounts.operator_of_subject(engine, person.subject)
    if found is None:
        problem = name_problem(person.name)
        if problem is not None:
            raise Forbidden("oidc_name", f"The name that the identity provider gave {problem}.")
        if await accounts.operator_named(engine, person.name) is not None:
            raise Conflict(
                "oidc_name_taken", f"There is another operator {person.name!r}. Ask an admin."
            )
        named = uuid7(now, secrets.token_bytes(10))
        blank = (None, None, None)
        made = Operator(named, person.name, role, "", *blank, now, None, person.subject)
        await accounts.add_operator(engine, made)
        act = Act("oidc", "operator add", f"{made.name}, {made.role}")
        return made, [await audits.append(engine, act, now)]
    if found.disabled_at is not None:
        raise Forbidden("oidc_disabled", "Your account at this console is disabled.")
    if found.role == role:
        return found, []
    changed = replace(found, role=role)
    await accounts.change_operator(engine, changed)
    act = Act("oidc", "operator role", f"{found.name}, {role}")
    return changed, [await audits.append(engine, act, now)]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _form_token(secret: str) -> str:
    """Of the session, and of no use for finding the cookie's secret."""
    return hmac.digest(secret.encode(), b"form", "sha256").hex()


def _owner(operator_id: UUID) -> bytes:
    return b"totp" + operator_id.bytes


def _key(keyring: Keyring, kind: str, text: str) -> bytes:
    return b"login:" + keyring.index(f"login {kind}", text.casefold())


# What `gateway operator` does: a transaction each, beside a running gateway.


def name_problem(name: str) -> str | None:
    """What is wrong with an operator's name; None when it will do."""
    if not _NAME.fullmatch(name):
        return "must be 1 to 64 small letters, digits or . _ @ -, a letter or digit first"
    return f"{name!r} is the demo's own operator; choose another" if name == DEMO else None


async def add(
    engine: Engine,
    name: str,
    role: Role,
    password: str,
    *,
    by: str,
    now: datetime,
    hasher: PasswordHasher = HASHER,
) -> Operator:
    """A new operator. Raises InvalidInput `password_weak`, Conflict `operator_exists`."""
    _strong(password, name)
    hashed = hasher.hash(password)
    operator_id = uuid7(now, secrets.token_bytes(10))
    made = Operator(operator_id, name, role, hashed, None, None, None, now, None)

    async def work(engine: Engine) -> None:
        if await accounts.operator_named(engine, name) is not None:
            raise Conflict("operator_exists", f"There is an operator {name!r} already.")
        await accounts.add_operator(engine, made)
        await audits.append(engine, Act(by, "operator add", f"{name}, {role}"), now)

    await writing(engine, work)
    return made


async def set_password(
    engine: Engine,
    keyring: Keyring,
    operator: Operator,
    password: str,
    *,
    by: str,
    now: datetime,
    hasher: PasswordHasher = HASHER,
) -> None:
    """A new password; ends the operator's sessions and forgets failed logins. Raises InvalidInput
    `password_weak`, `password_elsewhere`."""
    _own(operator)
    _strong(password, operator.name)
    tries = Counter(_key(keyring, "name", operator.name), now, 0)
    changed = replace(operator, password=hasher.hash(password))

    async def work(engine: Engine) -> None:
        await accounts.change_operator(engine, changed)
        await accounts.forget_tries(engine, [tries])
        await audits.append(engine, Act(by, "operator password", operator.name), now)

    await writing(engine, work)


def _strong(password: str, name: str) -> None:
    """Raise InvalidInput for a password that will not do."""
    problem = access.password_problem(password, name)
    if problem is not None:
        raise InvalidInput("password_weak", f"The password {problem}.")


def _own(operator: Operator) -> None:
    """Raise InvalidInput for somebody who has no password here."""
    if operator.subject is not None:
        raise InvalidInput(
            "password_elsewhere",
            f"{operator.name} logs in through the identity provider: password and second factor "
            "are kept there.",
        )


async def set_totp(
    engine: Engine, keyring: Keyring, operator: Operator, *, by: str, now: datetime, on: bool
) -> bytes | None:
    """A new secret for the second factor, sealed as stored, to be shown once; or none any more."""
    _own(operator)
    secret = secrets.token_bytes(totp.SECRET_BYTES) if on else None
    sealed, key_id = None, None
    if secret is not None:
        key_id = keyring.current
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = keyring.seal(key_id, secret, owner=_owner(operator.id), nonce=nonce)
    changed = replace(operator, totp_sealed=sealed, totp_key_id=key_id, totp_step=None)

    async def work(engine: Engine) -> None:
        await accounts.change_operator(engine, changed)
        done = "on" if on else "off"
        await audits.append(engine, Act(by, f"operator totp {done}", operator.name), now)

    await writing(engine, work)
    return secret


async def set_disabled(
    engine: Engine, operator: Operator, *, by: str, now: datetime, disabled: bool
) -> None:
    """Disable, and end the sessions; or enable again."""
    changed = replace(operator, disabled_at=now if disabled else None)

    async def work(engine: Engine) -> None:
        await accounts.change_operator(engine, changed)
        done = "disable" if disabled else "enable"
        await audits.append(engine, Act(by, f"operator {done}", operator.name), now)

    await writing(engine, work)
