"""A first draft, as people write it: FastAPI, a SQLModel session for every request, a commit for
every step, one httpx client for all, called inline. It stores what it promises, calls the provider
before it answers, and has no fallback, no encryption and no authentication. A yardstick of
scripts/bench."""

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import httpx
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel, create_engine, select

PROVIDER = os.environ["PROVIDER_URL"]
HEADERS = {"api-login": os.environ["API_LOGIN"], "api-key": os.environ["API_KEY"]}
LIFE = timedelta(minutes=5)
CHECKS = 5


def now() -> datetime:
    return datetime.now(UTC)


class Verification(SQLModel, table=True):
    id: str = Field(default_factory=lambda: str(uuid4()), primary_key=True)
    number: str = Field(index=True)
    code: str
    message_id: str | None = Field(default=None, index=True)
    delivery_status: str = "QUEUED"
    checks_left: int = CHECKS
    created_at: datetime = Field(default_factory=now)
    verified_at: datetime | None = None


class SendBody(BaseModel):
    to: str


class StatusBody(BaseModel):
    verification_id: str


class VerifyBody(StatusBody):
    code: str


class ReceiptBody(BaseModel):
    message_id: str
    status: str


engine = create_engine(
    os.environ["DATABASE_URL"],
    connect_args={"check_same_thread": False, "timeout": 60},
    pool_size=100,  # a session is closed by a thread of the same pool: the usual 15 stand still
)
SQLModel.metadata.create_all(engine)
with engine.connect() as connection:
    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
provider = httpx.Client(base_url=PROVIDER, headers=HEADERS)
app = FastAPI()


def session() -> Iterator[Session]:
    with Session(engine) as opened:
        yield opened


Database = Annotated[Session, Depends(session)]


@app.get("/")
def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/otp/send")
def send(body: SendBody, database: Database) -> dict[str, str]:
    code = f"{secrets.randbelow(1_000_000):06}"
    verification = Verification(number=body.to, code=code)
    database.add(verification)
    database.commit()
    message = {
        "recipients": [{"phone_number": body.to}],
        "text": f"{code} is your code. It is valid for 5 minutes.",
        "type": "sms_premium",
        "purpose": "alert",
        "sender": "BENCH",
    }
    try:
        answer = provider.post("/sms-campaign/send", json=message).raise_for_status()
    except httpx.HTTPError as error:
        verification.delivery_status = "FAILED"
        database.commit()
        raise HTTPException(502, "the provider did not take it") from error
    verification.message_id = answer.json()["sms_ticket"]
    verification.delivery_status = "SENT"
    database.commit()
    database.refresh(verification)
    return {
        "verification_id": verification.id,
        "delivery_status": verification.delivery_status,
    }


@app.post("/otp/delivered")
def delivered(body: ReceiptBody, database: Database) -> None:
    wanted = select(Verification).where(Verification.message_id == body.message_id)
    verification = database.exec(wanted).first()
    if verification is not None:  # a receipt may overtake the answer to our own call, and is lost
        verification.delivery_status = body.status
        database.commit()


def found(database: Session, verification_id: str) -> Verification:
    verification = database.get(Verification, verification_id)
    if verification is None:
        raise HTTPException(404, "no such verification")
    return verification


@app.post("/otp/status")
def status(body: StatusBody, database: Database) -> Verification:
    return found(database, body.verification_id)


@app.post("/otp/verify")
def verify(body: VerifyBody, database: Database) -> dict[str, int]:
    verification = found(database, body.verification_id)
    if now() - verification.created_at > LIFE or not verification.checks_left:
        raise HTTPException(410, "it is over")
    verification.checks_left -= 1
    right = secrets.compare_digest(verification.code, body.code)
    if right:
        verification.verified_at = now()
    database.commit()
    return {"checks_left": verification.checks_left}
