"""What each operation means: the ledger's table, in which it meets the services."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.services import (
    dispatch,
    health,
    idempotency,
    keys,
    limiting,
    naming,
    notify,
    operate,
    receive,
    reconcile,
    release,
    retention,
    send,
    verify,
)
from gateway.services.case import Context
from gateway.store.ledger import Doing, Operation


def doings(context: Context) -> Mapping[type[Operation[Any]], Doing]:
    """What each operation means. Facts come before deadlines; outcomes are never turned away."""

    def doing(order: int, share: float, module_wants: Any, apply: Any) -> Doing:
        def applied(tx: Any, operation: Any, now: datetime) -> Any:
            return apply(tx, context, operation, now)

        return Doing(order, share, module_wants, applied)

    table: dict[type[Operation[Any]], Doing] = {
        dispatch.Conclude: doing(0, 2.0, dispatch.wants, dispatch.apply),
        receive.Receive: doing(1, 1.0, receive.wants, receive.apply),
        health.Judge: doing(1, 2.0, health.wants, health.apply),
        naming.Adopt: doing(1, 1.0, naming.wants, naming.apply),
        receive.Sweep: doing(1, 1.0, receive.wants_sweep, receive.apply_sweep),
        limiting.Forget: doing(6, 1.0, limiting.wants_forget, limiting.apply_forget),
        verify.Check: doing(2, 0.9, verify.wants_check, verify.apply_check),
        verify.Cancel: doing(3, 0.9, verify.wants_cancel, verify.apply_cancel),
        verify.Next: doing(4, 0.75, verify.wants_next, verify.apply_next),
        release.Release: doing(4, 0.75, release.wants, release.apply),
        operate.Ask: doing(4, 0.75, operate.wants, operate.apply),
        send.Accept: doing(5, 0.75, send.wants, send.apply),
        reconcile.Wake: doing(6, 2.0, reconcile.wants, reconcile.apply),
        retention.Purge: doing(7, 0.5, retention.wants, retention.apply),
        retention.Forget: doing(7, 0.5, retention.wants_forget, retention.apply_forget),
        notify.Change: doing(7, 2.0, notify.wants, notify.apply),
    }
    return table | idempotency.doings(context, table) | keys.doings()
