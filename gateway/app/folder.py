"""The data folder: what must be in place on disk before a process may serve."""

import contextlib
import fcntl
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import IO

from gateway.app import keyring_file
from gateway.config import InUse, Settings, SettingsError
from gateway.domain.keyring import Keyring, KeyringError
from gateway.domain.verification import Verification
from gateway.ports import Server
from gateway.services.case import addresses_of, indexes
from gateway.store import schema
from gateway.store.engine import Engine, StoreError, open_engine
from gateway.store.reads import Reads

Migrate = Callable[[Path], None]

_ASK = ". Is the server up, and are address, user and database_password right?"


def prepare(settings: Settings, *, migrate: Migrate = schema.upgrade) -> Keyring:
    """Data folder, keyring and schema, made on the first start of the embedded default. For
    PostgreSQL `gateway migrate` makes them, once for all nodes.

    Raises SettingsError when one of them is not usable, and for a schema that is not current.
    """
    make_folders(settings)
    check_schema(settings.store, migrate=migrate)
    problem = keyring_problem(settings)
    if problem is not None:
        raise SettingsError({str(settings.keyring_file): problem})
    return keyring_file.load(settings.keyring_file, create=settings.server is None)


def keyring_problem(settings: Settings) -> str | None:
    """Why the keyring must not be used with the database, asked of its newest verification.

    Raises SettingsError when it cannot be read.
    """
    file = settings.keyring_file
    if keyring_file.proposed(file).exists():
        return "an index key was being replaced. Finish it: gateway keys reindex"
    newest = schema.settled(_newest(settings))
    if not file.exists():
        lost = "is missing, and the database holds verifications that need it. Put it back"
        return lost if newest else None
    keyring = keyring_file.load(file)
    for current in newest:
        try:
            found = addresses_of(keyring, current)
        except KeyringError as error:
            return f"is not the one of this database: {error}"
        if found and next(iter(indexes(keyring, found).values())) != current.recipient_index:
            return "is not the one of this database: its index key is another"
    return None


async def _newest(settings: Settings) -> list[Verification]:
    engine = open_engine(settings.store)
    try:
        reads = Reads(engine)
        found = await reads.records(await reads.latest(1), log=False)
    finally:
        await engine.close()
    return [record.verification for record in found]


def folders(settings: Settings) -> list[Path]:
    """Of the data and, where it is a file, of the database."""
    beside = [] if settings.server is not None else [settings.database.parent]
    return list(dict.fromkeys((settings.data_dir, *beside)))


def make_folders(settings: Settings) -> None:
    """The folders of the data and of the database. Raises SettingsError for an unusable one."""
    for folder in folders(settings):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except FileExistsError:
            problem = f"{folder} is a file. Name a folder, or move the file away"
            raise SettingsError({"data_dir": problem}) from None
        except OSError as error:
            problem = f"{folder} cannot be written to: {error.strerror}"
            raise SettingsError({"data_dir": problem}) from None


def check_schema(database: Path | Server, *, migrate: Migrate | None = None) -> None:
    """Raise SettingsError unless the schema is current; a new file gets it by `migrate`."""
    try:
        found, wanted = schema.current(database), schema.head()
        if found is None and migrate is not None and isinstance(database, Path):
            migrate(database)
            return
    except StoreError as error:
        ask = "" if isinstance(database, Path) else _ASK
        raise SettingsError({"database_url": f"{error}{ask}"}) from None
    if found != wanted:
        state = "has no schema" if found is None else f"is at migration {found}, not {wanted}"
        problem = f"{database} {state}. Run: gateway migrate"
        raise SettingsError({"database_url": problem})


@contextlib.contextmanager
def alone(folder: Path, *, shared: bool = False) -> Iterator[IO[str]]:
    """The lock of a data folder: one process serves, or replaces the index key. With `shared`
    (PostgreSQL) several serve, and the index key stays as it is meanwhile.

    Raises SettingsError when another process has it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        lock = (folder / "gateway.lock").open("w")
    except OSError as error:
        problem = f"{folder} cannot be written to: {error.strerror}"
        raise SettingsError({"data_dir": problem}) from None
    with lock as opened:
        try:
            fcntl.flock(opened, kind | fcntl.LOCK_NB)
        except OSError:
            problem = f"{folder} is in use by a running `gateway serve`. Stop it, or use another"
            raise InUse({"data_dir": problem}) from None
        yield opened


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Engine]:
    """The database for a command, its schema current. Raises SettingsError when it is not."""
    check_schema(settings.store)
    engine = open_engine(settings.store)
    try:
        yield engine
    finally:
        await engine.close()
