"""Logging in: over a real database, with a clock that stands still."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from fakes import Clock
from rig import Rig, changed, dumped, keyring

from gateway.domain import access, totp
from gateway.domain.access import Role
from gateway.domain.audit import Act
from gateway.domain.errors import Conflict, GatewayError, InvalidInput
from gateway.ports import Server
from gateway.services import accounts as logins
from gateway.services.accounts import Accounts
from gateway.store import accounts, audits
from gateway.store.audits import Filter
from gateway.store.desk import Desk
from gateway.store.records import Operator

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # the default takes 64 MiB
HERE = "192.0.2.1"


@dataclass
class Lines:
    """A log that keeps what it is told."""

    told: list[dict[str, Any]] = field(default_factory=list)

    def info(self, event: str, **facts: Any) -> None:
        self.told.append({"event": event, **facts})


@dataclass
class House:
    """Operators' logins over a database of their own."""

    store: Path | Server
    desk: Desk
    clock: Clock
    log: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.desk, keyring(), self.clock.now, self.log, hasher=CHEAP)

    async def add(self, name: str = "alice", role: Role = Role.SUPPORT) -> Operator:
        return await self.desk.read(
            lambda engine: logins.add(
                engine, name, role, PASSWORD, by="shell", now=self.clock.now(), hasher=CHEAP
            )
        )

    async def named(self, name: str) -> Operator:
        found = await self.desk.read(lambda engine: accounts.operator_named(engine, name))
        assert found is not None
        return found

    async def second(self, name: str = "alice") -> bytes:
        one = await self.named(name)
        secret = await self.desk.read(
            lambda engine: logins.set_totp(
                engine, keyring(), one, by="shell", now=self.clock.now(), on=True
            )
        )
        assert secret is not None
        return secret

    async def refused(self, name: str, password: str, code: str = "", at: str = HERE) -> str:
        with pytest.raises(GatewayError) as error:
            await self.accounts.login(name, password, code, at)
        return error.value.code

    async def acts(self) -> list[tuple[str, str]]:
        rows = await self.desk.read(lambda engine: audits.newest(engine, Filter(), 100))
        return [(row.actor, row.action) for row in reversed(rows)]

    def code(self, secret: bytes) -> str:
        return totp.code(secret, int(self.clock.now().timestamp()) // 30)


@pytest.fixture
async def house(tmp_path: Path, migrated: Path, clock: Clock) -> AsyncIterator[House]:
    store = Rig.server or Path(shutil.copy(migrated, tmp_path / "gateway.db"))
    desk = Desk(store)
    yield House(store, desk, clock)
    desk.close()


async def test_a_login_is_found_by_its_secret_alone(house: House) -> None:
    await house.add()
    secret, login = await house.accounts.login("alice", PASSWORD, "", HERE)
    found = await house.accounts.find(secret)

    assert login == found
    assert ("alice", Role.SUPPORT) == (login.name, login.role)
    assert await house.accounts.find(secret + "x") is None


async def test_the_database_holds_neither_password_nor_secret(house: House) -> None:
    await house.add()
    totp_secret = await house.second()
    secret, login = await house.accounts.login("alice", PASSWORD, house.code(totp_secret), HERE)
    held = "\n".join(str(row) for rows in dumped(house.store).values() for row in rows)

    for word in (PASSWORD, secret, login.form_token, totp_secret.hex(), totp.spelled(totp_secret)):
        assert word not in held
    assert "$argon2id$" in held


@pytest.mark.parametrize(
    ("name", "password"), [("alice", "wrong horse battery"), ("nobody", PASSWORD), ("", "")]
)
async def test_a_refusal_does_not_say_what_was_wrong(
    house: House, name: str, password: str
) -> None:
    await house.add()

    assert "login_refused" == await house.refused(name, password)


async def test_what_was_typed_for_a_name_nobody_has_is_not_kept(house: House) -> None:
    await house.refused("hunter2-typed-too-early", "x")

    assert [("(unknown)", "login refused")] == await house.acts()


async def test_five_failures_close_the_name_for_a_quarter_of_an_hour(house: House) -> None:
    await house.add()
    codes = [await house.refused("alice", "wrong") for _ in range(6)]
    right = await house.refused("alice", PASSWORD)
    house.clock.advance(15 * 60)
    await house.accounts.login("alice", PASSWORD, "", HERE)

    assert ["login_refused"] * 5 + ["login_tries_used_up"] * 2 == [*codes, right]


async def test_a_name_nobody_has_is_closed_alike(house: House) -> None:
    codes = [await house.refused("nobody", "wrong") for _ in range(6)]

    assert ["login_refused"] * 5 + ["login_tries_used_up"] == codes


async def test_an_address_is_closed_whatever_names_it_tries(house: House) -> None:
    codes = [await house.refused(f"name{at}", "x") for at in range(access.TRIES_FROM + 1)]

    assert "login_tries_used_up" == codes[-1]
    assert "login_refused" == await house.refused("another", "x", at="192.0.2.2")


async def test_many_tries_at_once_are_counted_before_they_are_made(house: House) -> None:
    """Fails where the try is counted after the password was compared."""
    await house.add()
    codes = await asyncio.gather(*(house.refused("alice", "wrong") for _ in range(12)))

    assert 5 == codes.count("login_refused")


async def test_a_good_login_forgets_the_failures_before_it(house: House) -> None:
    await house.add()
    for _ in range(3):
        for _ in range(4):
            await house.refused("alice", "wrong")
        await house.accounts.login("alice", PASSWORD, "", HERE)

    assert 3 == (await house.acts()).count(("alice", "login"))


async def test_the_second_factor_is_asked_for_and_taken_once(house: House) -> None:
    await house.add()
    secret = await house.second()
    code = house.code(secret)
    without = await house.refused("alice", PASSWORD)
    await house.accounts.login("alice", PASSWORD, code, HERE)
    again = await house.refused("alice", PASSWORD, code)
    house.clock.advance(30)
    await house.accounts.login("alice", PASSWORD, house.code(secret), HERE)

    assert ("login_refused", "login_refused") == (without, again)


async def test_one_code_in_two_logins_at_once_lets_one_in(house: House) -> None:
    """Fails without the guard in the statement that takes the step."""
    await house.add()
    code = house.code(await house.second())
    both = await asyncio.gather(
        *(house.accounts.login("alice", PASSWORD, code, HERE) for _ in range(2)),
        return_exceptions=True,
    )

    assert 1 == sum(isinstance(one, GatewayError) for one in both)


@pytest.mark.parametrize("change", ["disable", "password", "totp"])
async def test_whoever_is_logged_in_is_out_when_the_account_changes(
    house: House, change: str
) -> None:
    await house.add()
    secret, _ = await house.accounts.login("alice", PASSWORD, "", HERE)
    one, now = await house.named("alice"), house.clock.now()

    async def act(engine: Any) -> None:
        if change == "disable":
            await logins.set_disabled(engine, one, by="shell", now=now, disabled=True)
        elif change == "password":
            await logins.set_password(
                engine, keyring(), one, "another horse entirely", by="shell", now=now, hasher=CHEAP
            )
        else:
            await logins.set_totp(engine, keyring(), one, by="shell", now=now, on=True)

    await house.desk.read(act)

    assert await house.accounts.find(secret) is None
    assert "login_refused" == await house.refused("alice", PASSWORD)


async def test_a_session_that_is_used_lasts_to_its_absolute_end(house: House) -> None:
    await house.add()
    secret, _ = await house.accounts.login("alice", PASSWORD, "", HERE)
    alive = []
    for _ in range(30):
        house.clock.advance(25 * 60)
        alive.append(await house.accounts.find(secret) is not None)

    assert [True] * 28 + [False] * 2 == alive


async def test_a_session_nobody_uses_ends_after_half_an_hour(house: House) -> None:
    await house.add()
    secret, _ = await house.accounts.login("alice", PASSWORD, "", HERE)
    house.clock.advance(30 * 60)

    assert await house.accounts.find(secret) is None


async def test_a_session_that_was_left_is_over(house: House) -> None:
    await house.add()
    secret, login = await house.accounts.login("alice", PASSWORD, "", HERE)
    await house.accounts.logout(login)

    assert await house.accounts.find(secret) is None


async def test_a_password_typed_again_proves_for_five_minutes_more(house: House) -> None:
    await house.add()
    secret, login = await house.accounts.login("alice", PASSWORD, "", HERE)
    house.clock.advance(6 * 60)
    before = login.session.proven(house.clock.now())
    await house.accounts.prove(login, PASSWORD, "", HERE)
    found = await house.accounts.find(secret)

    assert not before
    assert found is not None
    assert found.session.proven(house.clock.now())


async def test_every_login_and_change_is_in_the_audit_log_and_the_chain_holds(
    house: House,
) -> None:
    await house.add()
    _, login = await house.accounts.login("alice", PASSWORD, "", HERE)
    await house.accounts.record(Act("alice", "look", subject="x"))
    await house.refused("alice", "wrong")
    await house.accounts.logout(login)
    chain, wrong = await house.desk.read(audits.verify)
    expected = ["operator add", "login", "look", "login refused", "logout"]

    assert expected == [action for _, action in await house.acts()]
    assert ([], 5) == (wrong, chain.rows)
    assert expected[1:] == [line["action"] for line in house.log.told]


async def test_acts_at_once_stand_in_one_chain(house: House) -> None:
    """The desk's own turn and the database's lock keep two from naming the same row."""
    beside = Desk(house.store)
    other = Accounts(beside, keyring(), house.clock.now, Lines(), hasher=CHEAP)
    try:
        await asyncio.gather(
            *(one.record(Act("alice", "look", str(at))) for at in range(10)
              for one in (house.accounts, other))
        )  # fmt: skip
    finally:
        beside.close()
    chain, wrong = await house.desk.read(audits.verify)

    assert (20, []) == (chain.rows, wrong)


async def test_a_row_removed_from_the_database_shows(house: House) -> None:
    for at in range(3):
        await house.accounts.record(Act("alice", "look", str(at)))
    changed(house.store, "DELETE FROM audit WHERE sequence = 2")
    _, wrong = await house.desk.read(audits.verify)

    assert ["rows 2 to 2 are missing"] == wrong


async def test_rows_cut_off_at_the_end_show_against_a_head(house: House) -> None:
    for at in range(3):
        await house.accounts.record(Act("alice", "look", str(at)))
    chain, _ = await house.desk.read(audits.verify)
    changed(house.store, "DELETE FROM audit WHERE sequence = 3")
    _, wrong = await house.desk.read(audits.verify)
    missing = await house.desk.read(lambda engine: audits.missing(engine, chain.head))

    assert [] == wrong
    assert 1 == len(missing)


async def test_a_name_is_given_once(house: House) -> None:
    await house.add()
    with pytest.raises(Conflict, match="operator_exists"):
        await house.add()


async def test_a_weak_password_is_refused(house: House) -> None:
    with pytest.raises(InvalidInput, match="password_weak"):
        await house.desk.read(
            lambda engine: logins.add(
                engine, "bob", Role.VIEWER, "short", by="shell", now=house.clock.now()
            )
        )


@pytest.mark.parametrize("name", ["", "Alice", "a b", "-a", "a" * 65, "demo"])
def test_names_that_are_not_given(name: str) -> None:
    assert logins.name_problem(name) is not None
