"""Every problem code: its status and what it means. The one list that README, `/docs` and
`/openapi.json` tell; a test holds it against the sources.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """`statuses`: one, or two where a code is used for two calls."""

    statuses: tuple[int, ...]
    text: str


def _at(*statuses: int, **codes: str) -> dict[str, Meaning]:
    return {code: Meaning(statuses, text) for code, text in codes.items()}


CODES: Mapping[str, Meaning] = {
    **_at(
        400,
        broken_json="The body is not valid JSON.",
        unknown_field="A field that this call does not have; `fields` names it.",
        invalid_request="A field is wrong, missing, or does not go with another; see `errors`.",
        number_in_url="Numbers and addresses do not belong in URLs: POST them.",
        key_in_url="Verification keys do not belong in URLs: POST them.",
        verification_key_invalid="The verification key was altered or is not of this gateway.",
        recipient_mismatch="The verification key was made for another recipient.",
        idempotency_refused="An Idempotency-Key cannot stand for many recipients.",
        bad_url="A webhook cannot go to this URL.",
        unknown_kind="There is no such kind of event.",
        client_ip_invalid="`client_ip` is no IPv4 or IPv6 address.",
        recipient_invalid="The number or address cannot be read.",
        recipient_refused="A kind of number that gets no codes (premium-rate, pager …): `kind`.",
        unknown_workflow="No workflow of that name is configured.",
        unknown_channel="No route for that channel is configured.",
        workflow_too_long="The code would expire before the step `step` could be sent.",
        no_address="No step of the workflow has an address of this recipient.",
        ambiguous="Several verifications of this address run; name its id, or its `template`.",
        unknown_template="No template of that name is configured.",
        params_missing="The template needs the values that `params` names.",
        params_not_allowed="A value that the template has no place for, or that is no plain text.",
        text_invalid="The text of your own cannot be used.",
        amount_required="The template shows an amount: give `amount` and `payee`.",
        amount_not_shown="The template does not show amount and payee.",
        amount_mismatch="Not the amount and payee that the code was sent for; not counted.",
    ),
    **_at(
        401,
        key_missing="There is no `Authorization: Bearer <key>`.",
        key_unknown="The API key is not known, revoked or expired.",
        metrics_token_wrong="The token of `metrics.token` is missing or wrong.",  # noqa: S106  (a code)
        callback_refused="The callback's key or signature is missing or wrong.",
    ),
    **_at(
        403,
        scope_missing="The key does not allow this call: it lacks the scope `scope`.",
        test_key_refused="This process has no sandbox for test keys.",
        metrics_closed="Without a token the metrics are open to this machine only.",
        country_refused="Codes are not sent to this country.",
        text_not_allowed="The key may not send texts of its own.",
    ),
    **_at(
        404,
        verification_not_found="This client has no such verification.",
        subscription_not_found="This client has no such subscription.",
        wrong_code="Not the code; counted, see `checks_left`.",
        no_such_path="There is nothing at this path.",
    ),
    **_at(400, 404, unknown_route="There is no such route."),
    **_at(405, method_not_allowed="The path does not take that method; see the header Allow."),
    **_at(
        409,
        already_verified="The code was right before and has been used.",
        too_many_subscriptions="A client may have only so many; remove one first.",
        already_running="A verification is running, and `on_repeat` is `refuse`.",
        workflow_differs="The running verification goes another way than this request wants.",
        code_differs="Another code is running for this recipient; within the cool-down the answer "
        "is `cool_down`, whatever the code.",
        no_step_left="The last step of the workflow is under way already.",
    ),
    **_at(409, 429, too_late="Too little of the code's life is left to send it again."),
    **_at(
        410,
        expired="The code has expired.",
        canceled="The verification was canceled.",
        failed="No provider took the message.",
    ),
    **_at(413, body_too_large="The body is larger than this path takes, as a rule 256 KiB."),
    **_at(415, unsupported_media_type="Send JSON, with Content-Type: application/json."),
    **_at(422, idempotency_mismatch="The Idempotency-Key came with another request before."),
    **_at(
        429,
        key_rate="The key makes more calls a second than it may; no `remaining` and `reset`: it "
        "is about seconds, see `retry_after`.",
        cool_down="A code, or the step asked for, is on its way; wait `retry_after` seconds.",
        sends_used_up="This verification has been sent as often as it may.",
        checks_used_up="All checks of this verification are used up.",
        failure_budget_used_up="Too many wrong codes for this recipient, over all verifications.",
        limit_reached="The limit `rule` allows no more sends until `reset`.",
        pumping_suspected="Too few of the codes sent to such numbers are ever typed; see `reset`.",
        spend_cap="The client has spent its money of the day; see `reset`.",
    ),
    **_at(500, internal_error="Something went wrong here, and it was logged."),
    **_at(
        503,
        overloaded="Too much is waiting; nothing was stored.",
        storage="The database did not take it, or does not answer; nothing was stored.",
        no_route="Every route of the workflow has been disabled.",
        too_many_waiting="Too many callers wait here; ask without waiting.",
        closing="This process is shutting down; nothing was stored.",
        callback_unproven="The callback cannot be checked now; the provider should repeat it.",
        not_confirmed="The provider does not confirm what the callback says.",
    ),
}
