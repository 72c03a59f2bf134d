"""Every kind of problem that Mizan answers with: the published catalogue of stable codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its stable code, HTTP status, title, what it means and what to do about it."""

    code: str
    status: int
    title: str
    meaning: str
    remedy: str


CATALOGUE: Final[Mapping[str, Kind]] = {
    kind.code: kind
    for kind in (
        Kind(
            "malformed_request",
            400,
            "The request cannot be read",
            "The body is not strict JSON in UTF-8 (duplicate keys, NaN, too deep, an unpaired surrogate), or the address or a header holds a NUL character.",
            "Send valid UTF-8 JSON with each key once and at most 32 levels, as `application/json`.",
        ),
        Kind(
            "invalid_request",
            422,
            "The request does not fit its schema",
            "A value is missing, unknown, of the wrong type or out of range; `errors` names each one by JSON pointer or parameter.",
            "Correct the values that `errors` points at and send the request again.",
        ),
        Kind(
            "invalid_cursor",
            400,
            "The cursor is not valid",
            "The cursor was changed, is older than 7 days, or belongs to another client, list or set of filters.",
            "Start the list again without a cursor.",
        ),
        Kind(
            "idempotency_key_required",
            400,
            "An Idempotency-Key is required",
            "Requests that move or promise money carry an `Idempotency-Key` header of 1 to 255 printable ASCII characters.",
            "Choose a random key for each operation and send it again, unchanged, with each retry.",
        ),
        Kind(
            "idempotency_key_in_use",
            409,
            "The first request with this key is still running",
            "Another request with the same Idempotency-Key is being processed now.",
            "Wait a second and retry with the same key: you will get the first one's answer.",
        ),
        Kind(
            "idempotency_key_reused",
            422,
            "The key was used for another request",
            "The Idempotency-Key has been used with another method, path or body.",
            "Use a new key for a new operation.",
        ),
        Kind(
            "unauthorised",
            401,
            "The token is missing or not valid",
            "There is no bearer token, or it is malformed, expired, signed with an unknown key or meant for someone else.",
            "Get a token at `POST /oauth/token`; it lives at most 15 minutes.",
        ),
        Kind(
            "log_in_refused",
            401,
            "The log-in is refused",
            "The e-mail address, the password or the code is not right, or too much was tried: all are answered alike.",
            "Try again with the next code of your authenticator; after several tries, wait a while. Another administrator can request a new link for you.",
        ),
        Kind(
            "weak_password",
            422,
            "The password can be guessed",
            "It has fewer than 12 or more than 128 characters, is common, a pattern, or made of your name.",
            "Choose several unrelated words, or let a password manager make one.",
        ),
        Kind(
            "approval_required",
            409,
            "Another administrator has to approve it",
            "The two first administrators exist; other operators are requested, and approved by one of them.",
            "File the request with `POST /v1/operators`.",
        ),
        Kind(
            "insufficient_scope",
            403,
            "The token lacks the scope",
            "The token is valid but was not issued with the scope that this operation needs; `WWW-Authenticate` names it.",
            "Ask for the scope at `POST /oauth/token`, if your client has been granted it.",
        ),
        Kind(
            "not_found",
            404,
            "There is nothing here for you",
            "It does not exist, or it is not yours to see: the two are answered alike.",
            "Check the id, and that it was given to this client.",
        ),
        Kind(
            "method_not_allowed",
            405,
            "The method is not allowed here",
            "The address exists, but not with this method; `Allow` lists those it has.",
            "Use a method that the reference lists for the address.",
        ),
        Kind(
            "request_timeout",
            408,
            "The request took too long to arrive",
            "The body was not received in time.",
            "Send it again.",
        ),
        Kind(
            "conflict",
            409,
            "The request conflicts with what is there",
            "What the request would do contradicts the present state; `detail` says how.",
            "Read the present state, then decide.",
        ),
        Kind(
            "content_too_large",
            413,
            "The body is too large",
            "Bodies are limited to 256 KiB.",
            "Send less in one request.",
        ),
        Kind(
            "address_too_long",
            414,
            "The address is too long",
            "An address has at most 8 KiB, its query included.",
            "Send less in the address; cursors and ids are sent as they were received.",
        ),
        Kind(
            "headers_too_large",
            431,
            "The headers are too large",
            "A request has at most 100 headers, of 32 KiB together.",
            "Send fewer and shorter headers.",
        ),
        Kind(
            "unsupported_media_type",
            415,
            "The media type is not supported",
            "The body has a `Content-Encoding`, or is not of a type that this address accepts.",
            "Send plain `application/json` (tokens: `application/x-www-form-urlencoded`).",
        ),
        Kind(
            "rate_limited",
            429,
            "Too many requests",
            "The client has used up its requests for this minute; or too many requests without a token, or refused proofs, came from its address.",
            "Wait for as long as `Retry-After` says.",
        ),
        Kind(
            "internal_error",
            500,
            "Something failed on our side",
            "An error that we did not foresee; it has been recorded under the request id.",
            "Retry with the same Idempotency-Key; if it stays, tell us the `request_id`.",
        ),
        Kind(
            "unavailable",
            503,
            "Not available right now",
            "The database cannot be reached or is too busy, a queue is full, too many requests are under way, or this one took too long.",
            "Retry with the same Idempotency-Key after `Retry-After` seconds.",
        ),
        Kind(
            "invalid_id",
            422,
            "An id is not of the right kind",
            "An id in the body or a filter is not one that Mizan gives out for such a thing.",
            "Send the id exactly as you received it, prefix included.",
        ),
        Kind(
            "invalid_money",
            422,
            "The amount is not money",
            "An amount is not an integer number of minor units up to 2^53−1, or its currency is not in ISO 4217.",
            'Send `{"amount": 150000, "currency": "PHP"}` in minor units.',
        ),
        # the registry
        Kind(
            "member_exists",
            409,
            "The member is registered already",
            "You have registered this phone number or partner reference in the programme before; `member` is its id.",
            "Use the member that you have.",
        ),
        Kind(
            "invalid_phone",
            422,
            "The phone number is not valid",
            "It is not an international number in E.164 form that its country's plan allows.",
            "Send it as `+` and digits, as in `+971501234567`.",
        ),
        Kind(
            "invalid_fact",
            422,
            "The fact is not one of the programme",
            "The programme's rules name the facts that they read; this is none of them, or its value is of another type.",
            "See the programme's facts at `GET /v1/programmes/{programme}`.",
        ),
        Kind(
            "not_eligible",
            422,
            "The member cannot join the product",
            "The product's conditions are not met by the member's facts as of today; `detail` says which.",
            "Add the missing fact with its evidence, or choose another product.",
        ),
        Kind(
            "invalid_choice",
            422,
            "The choice is not one the product offers",
            "The percentage, amount or option lies outside what the programme lets a member choose.",
            "See the product's choices at `GET /v1/programmes/{programme}`.",
        ),
        Kind(
            "already_enrolled",
            409,
            "The member is enrolled already",
            "The member has an active enrolment in this product.",
            "Use the enrolment that there is.",
        ),
        Kind(
            "mandate_required",
            409,
            "There is no mandate in force",
            "Nothing is deducted without the member's mandate; it is absent, paused or withdrawn.",
            "Record the member's mandate at `POST /v1/members/{id}/consents`.",
        ),
        Kind(
            "unknown_product",
            404,
            "The programme has no such product",
            "No product of this code is in the version of the programme that is in force.",
            "See the products at `GET /v1/programmes/{programme}`.",
        ),
        # remittances and quotes
        Kind(
            "remittance_conflict",
            409,
            "The remittance is known with other content",
            "The `remittance_id` has been used for a remittance with other content.",
            "A remittance id stands for one remittance for ever: use a new one, or reverse the first.",
        ),
        Kind(
            "remittance_refused",
            422,
            "The remittance cannot be taken",
            "It is well-formed, but impossible here: another currency than the programme's, a time too far off, more collected than received.",
            "Correct what `detail` names.",
        ),
        Kind(
            "already_reversed",
            409,
            "It has been reversed already",
            "A remittance or transaction is reversed at most once.",
            "Nothing is left to do.",
        ),
        Kind(
            "approval_required",
            409,
            "A fund manager has to approve it",
            "What was asked takes back money that is settled, or goes beyond a cap.",
            "Ask the fund's managers; they reverse it.",
        ),
        Kind(
            "books_moved",
            409,
            "The books moved meanwhile",
            "Accounts that many share changed again and again while the request was worked out.",
            "Retry with the same Idempotency-Key.",
        ),
        Kind(
            "quote_refused",
            422,
            "The quote cannot be given",
            "The remittance could not be accepted as described: corridor, currency, mandate or enrolment.",
            "Correct what `detail` names.",
        ),
        Kind(
            "partner_limit",
            409,
            "The partner's limit is reached",
            "The partner has collected as much as its terms allow before it settles.",
            "Settle what is collected.",
        ),
        # webhooks
        Kind(
            "signature_invalid",
            401,
            "The delivery is not proven",
            "No active partner behind this address has signed these bytes: unknown address, disabled partner, and missing or wrong signature are answered alike.",
            "Sign `webhook-id.webhook-timestamp.body`, the body byte for byte as sent, with the secret you were given for this address.",
        ),
        Kind(
            "timestamp_out_of_tolerance",
            401,
            "The delivery was signed too long ago, or ahead of time",
            "The signature is good, and `webhook-timestamp` is more than 5 minutes from our clock.",
            "Set your clock, and sign each attempt with its own time; the id stays the same.",
        ),
        Kind(
            "invalid_event",
            400,
            "The event breaks its schema",
            "The delivery is authentic, and its event has a value that is missing, of the wrong type or out of range; `errors` names each one by JSON pointer. It is kept and shown to you.",
            "Correct what `errors` points at and send it again, under the same id if you like: the id is still free.",
        ),
        Kind(
            "delivery_conflict",
            409,
            "The id was used for another event",
            "A delivery with this `webhook-id` was accepted before, and its event says something else. Both are kept.",
            "Use a new id for a new event, and the same id only to repeat the same event.",
        ),
        Kind(
            "body_unreadable",
            409,
            "The body is gone",
            "The body of a delivery is destroyed 90 days after it was processed; its digest and its outcome stay.",
            "Send the event again if it is needed.",
        ),
        # the books
        Kind(
            "insufficient_funds",
            409,
            "There is not enough available",
            "The account's available balance would fall below its floor.",
            "Wait for funds to settle, or ask for less.",
        ),
        Kind(
            "ceiling_exceeded",
            409,
            "The account's ceiling is reached",
            "The account's balance would rise above its ceiling.",
            "Settle first, or ask for less.",
        ),
        Kind(
            "account_closed",
            409,
            "The account is closed",
            "A closed account takes no more postings.",
            "Use the account that replaced it.",
        ),
        Kind(
            "period_closed",
            409,
            "The period is closed",
            "The books of the date are closed.",
            "Use a date in an open period.",
        ),
        Kind(
            "invalid_posting",
            422,
            "The transaction could never be posted",
            "It breaks a rule of the books, whatever their state.",
            "Correct what `detail` names.",
        ),
        Kind(
            "period_conflict",
            409,
            "The period cannot be changed so",
            "The period is already closed, or what was asked would leave a gap.",
            "Look at the fund's periods first.",
        ),
        Kind(
            "account_conflict",
            409,
            "The account cannot be changed so",
            "The account exists with other properties, or still has a balance.",
            "Look at the account first.",
        ),
        Kind(
            "hold_conflict",
            409,
            "The hold cannot be changed so",
            "The hold has ended already, or is smaller than what was asked.",
            "Look at the hold first.",
        ),
        Kind(
            "not_yet_available",
            409,
            "It is not available yet",
            "The moment asked for lies ahead of what has settled.",
            "Ask for an earlier time, or retry in a few seconds.",
        ),
    )
}
