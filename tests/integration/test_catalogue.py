"""What the database itself allows, compared with what is meant: grants, row-level security, triggers, owners, functions.

Whoever changes one of these in a migration changes this list too, and says why in the same commit.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from api.migrations.run import differences
from tests.conftest import Databases

SCHEMAS = ["api", "integrations", "ledger", "products"]

GRANTS = """
api.approval_request           api=r  worker=r  auditor=r
api.audit_key                  api=ra  worker=ra
api.client_key                 api=r  worker=ra
api.client_secret              api=r  worker=raw
api.idempotent_answer          api=ra  worker=rad
api.log_in_tries               worker=rawd
api.oauth_client               api=r  worker=raw
api.openid_log_in              worker=rad
api.operator                   worker=ra  auditor=r
api.operator_credential        worker=raw
api.operator_identity          worker=ra
api.operator_link              worker=raw
api.operator_recovery_code     worker=rad
api.operator_role              worker=rad  auditor=r
api.operator_session           worker=rad
api.revoked_token              api=a  worker=rad
api.signing_key                api=ra  worker=ra
api.stamp                      api=r  worker=r  sealer=r  auditor=r
api.used_jti                   api=a  worker=rad
integrations.delivery          api=r  worker=r  auditor=r
integrations.delivery_outcome  api=ra  worker=ra  auditor=r
integrations.delivery_queue    api=r  worker=rad  auditor=r
integrations.endpoint_secret   api=ra  worker=rad
integrations.event             api=r  worker=rad  auditor=r
integrations.event_attempt     api=r  worker=rad  auditor=r
integrations.event_delivery    api=ra  worker=rawd  auditor=r
integrations.event_stream      api=ra  worker=rawd  auditor=r
integrations.inbox_key         api=ra  worker=ra
integrations.outbox_position   worker=rw  auditor=r
integrations.payment_answer    api=r  worker=ra  auditor=r
integrations.payment_answer_line api=r  worker=ra  auditor=r
integrations.payment_file      api=r  worker=ra  auditor=r
integrations.payment_file_line api=r  worker=ra  auditor=r
integrations.rail_callback     worker=ra
integrations.rail_secret       worker=ra
integrations.simulated_payment worker=raw  auditor=r
integrations.webhook_endpoint  api=ra  worker=ra  auditor=r
integrations.webhook_secret    api=r  worker=ra
ledger.account                 api=ra  worker=ra  auditor=r
ledger.account_balance         api=r  worker=r  auditor=r
ledger.account_day             api=r  worker=raw  auditor=r
ledger.account_month           api=r  worker=raw  auditor=r
ledger.audit_entry             api=r  worker=r  sealer=r  auditor=r
ledger.bank_account            api=r  worker=ra  auditor=r
ledger.bank_counterparty       api=r  worker=ra  auditor=r
ledger.bank_statement          api=r  worker=ra  auditor=r
ledger.era                     api=r  worker=r  sealer=r  auditor=r
ledger.fold                    api=r  worker=raw  auditor=r
ledger.fund                    api=ra  worker=ra  auditor=r
ledger.hold                    api=r  worker=r  auditor=r
ledger.item                    api=r  worker=ra  auditor=r
ledger.outbox                  worker=r  auditor=r
ledger.paired_item             api=r  worker=r  auditor=r
ledger.paired_line             api=r  worker=r  auditor=r
ledger.pairing                 api=r  worker=ra  auditor=r
ledger.pairing_rules           api=r  worker=ra  auditor=r
ledger.pairing_run             api=r  worker=ra  auditor=r
ledger.period_event            api=r  worker=r  auditor=r
ledger.posting                 api=r  worker=ra  sealer=r  auditor=r
ledger.reference               worker=ra  auditor=r
ledger.seal                    api=r  worker=r  sealer=ra  auditor=r
ledger.seal_key                api=r  worker=r  sealer=ra  auditor=r
ledger.statement_file          api=r  worker=ra  auditor=r
ledger.statement_line          api=r  worker=ra  auditor=r
ledger.statement_piece         api=r  worker=rad  auditor=r
ledger.transaction             api=r  worker=r  sealer=r  auditor=r
ledger.verification            api=r  worker=r  auditor=r
products.agency                api=r  worker=ra  auditor=r
products.beneficiary           api=ra  worker=ra  auditor=r
products.break                 api=r  worker=ra  auditor=r
products.break_event           api=r  worker=ra  auditor=r
products.break_found           worker=rad
products.break_limit           api=r  worker=ra  auditor=r
products.break_resolution      api=r  worker=ra  auditor=r
products.challenge             api=ra  worker=ra  auditor=r
products.challenge_try         auditor=r
products.claim_line            api=r  worker=ra  auditor=r
products.claim_pack            api=r  worker=ra  auditor=r
products.close                 api=r  worker=ra  auditor=r
products.close_explanation     api=r  worker=ra  auditor=r
products.close_file            api=r  worker=ra  auditor=r
products.consent               api=ra  worker=ra  auditor=r
products.contribution          api=r  worker=raw  auditor=r
products.dependant             api=ra  worker=ra  auditor=r
products.device                api=ra  worker=ra  auditor=r
products.enrolment             api=ra  worker=ra  auditor=r
products.expected_settlement   worker=ra  auditor=r
products.forfeiture            api=r  worker=rad  auditor=r
products.identity_index        api=a  worker=rad
products.index_root            api=ra  worker=ra
products.link_offer            api=ra  worker=ra  auditor=r
products.master_key            api=ra  worker=ra
products.match_adjustment      api=r  worker=raw  auditor=r
products.match_queue           api=r  worker=rawd  auditor=r
products.match_share           api=r  worker=raw  auditor=r
products.match_state           api=r  worker=raw  auditor=r
products.member                api=ra  worker=ra  auditor=r
products.member_document       api=ra  worker=ra  auditor=r
products.member_fact           api=ra  worker=ra  auditor=r
products.member_link           api=ra  worker=ra  auditor=r
products.member_verification   api=ra  worker=ra  auditor=r
products.notice                api=ra  worker=ra  auditor=r
products.opening_load          api=r  worker=ra  auditor=r
products.opening_row           api=r  worker=ra  auditor=r
products.opening_window        api=r  worker=ra  auditor=r
products.pairing_effect        api=r  worker=ra  auditor=r
products.partner               api=r  worker=raw  auditor=r
products.partner_programme     api=r  worker=raw  auditor=r
products.partner_warning       api=r  worker=ra  auditor=r
products.payee                 api=ra  worker=ra  auditor=r
products.payout                api=r  worker=raw  auditor=r
products.payout_attempt        api=r  worker=raw  auditor=r
products.payout_change         api=r  worker=ra  auditor=r
products.payout_part           api=r  worker=ra  auditor=r
products.person_member         worker=r  auditor=r
products.programme             api=r  worker=ra  auditor=r
products.programme_fund        api=r  worker=ra  auditor=r
products.programme_version     api=r  worker=ra  auditor=r
products.quote                 api=ra  worker=raw  auditor=r
products.rail                  api=r  worker=ra  auditor=r
products.rail_breaker          api=r  worker=raw  auditor=r
products.rail_day              worker=raw  auditor=r
products.rail_report           api=r  worker=raw  auditor=r
products.receipt               api=r  worker=ra  auditor=r
products.reevaluation          worker=rawd  auditor=r
products.remittal              api=r  worker=ra  auditor=r
products.remittal_answer       api=r  worker=ra  auditor=r
products.remittal_line         api=r  worker=ra  auditor=r
products.remittance            api=r  worker=raw  auditor=r
products.remittance_claim      api=r  worker=raw  auditor=r
products.settlement            api=r  worker=ra  auditor=r
products.settlement_credit     api=r  worker=ra  auditor=r
products.settlement_difference api=r  worker=ra  auditor=r
products.settlement_file       api=r  worker=ra  auditor=r
products.settlement_file_line  api=r  worker=ra  auditor=r
products.settlement_item       worker=ra  auditor=r
products.settlement_mapping    api=r  worker=ra  auditor=r
products.settlement_part       worker=ra  auditor=r
products.settlement_terms      api=r  worker=ra  auditor=r
products.sponsor               api=r  worker=raw  auditor=r
products.sponsor_payment       worker=ra  auditor=r
products.waiting_change         api=ra  worker=ra  auditor=r
products.withdrawal            api=r  worker=raw  auditor=r
"""
"""On whole tables: r select, a insert, w update, d delete. Partitions of the journal are granted to nobody."""

COLUMN_GRANTS = """
api.approval_request worker insert id kind object programme_id sealed_payload payload_digest remark requested_by requested_at expires_at
api.approval_request worker update state decided_by decided_at decision_remark result
api.audit_key worker update wrapped destroyed_at
api.openid_log_in worker update returned_at subject operator_id ended_at
api.operator worker update name organisation_id state
api.operator_recovery_code worker update used_at
api.operator_session worker update seen_at confirmed_at ended_at
api.client_key worker update removed_at
api.signing_key api update verifies_until
api.signing_key worker update verifies_until
integrations.delivery api insert id partner_id delivery_key kind event_type lane digest body_digest body_sealed inbox_key_id received_at
integrations.delivery_queue api insert lane id
integrations.endpoint_secret api update expires_at
integrations.endpoint_secret worker update expires_at
integrations.event_delivery api update state reason tries queued_at finished_at
integrations.event_stream api update due_at
integrations.inbox_key worker update wrapped destroyed_at
integrations.payment_file api update state fetched_at
integrations.payment_file worker update state fetched_at answered_at
integrations.webhook_endpoint api update url description event_types state reason changed_at failing_since
integrations.webhook_endpoint worker update url description event_types state reason changed_at failing_since
integrations.rail_callback worker update times
integrations.rail_secret worker update sealed
integrations.webhook_secret worker update expires_at
products.rail worker update payee_kinds fee_fixed fee_basis_points fee_bearer arrival_unit arrival_earliest arrival_latest arrival_countries amount_min amount_max per_member_day per_day release_above queue_max options paused_at
ledger.audit_entry api insert id actor_kind actor action object outcome address request_id programme_id before after before_digest after_digest detail recorded_at salt leaf
ledger.audit_entry worker insert id actor_kind actor action object outcome address request_id programme_id before after before_digest after_digest detail recorded_at salt leaf
ledger.hold api insert id reference account_id amount expires_at created_at
ledger.hold api update captured state transaction_id ended_at
ledger.hold worker insert id reference account_id amount expires_at created_at
ledger.hold worker update captured state transaction_id ended_at
ledger.bank_account worker update name also_known_as servicer statements_since statements_until statement_mapping
ledger.bank_counterparty worker update ended_at
ledger.bank_statement worker update withdrawn_at withdrawn_by withdrawn_because
ledger.statement_file worker update statements skipped wrapped_key destroyed_at
ledger.statement_line worker update party counterparty_index duplicate_of text_sealed
ledger.item worker update amount on_date day end_to_end reference identifiers party batch subject closed_at
ledger.pairing worker update undone_at undone_by undone_remark
ledger.outbox api insert id topic key payload recorded_at
ledger.outbox worker insert id topic key payload recorded_at
ledger.transaction worker insert id reference kind effective_on recorded_at reverses postings details salt leaf
ledger.verification worker insert id asked_by asked_at
ledger.verification worker update verified_at ok transactions postings unsealed findings era horizon
products.challenge api update sending used_at
products.challenge worker update phone_index sending used_at
products.consent api update paused_at withdrawn_at
products.consent worker update paused_at withdrawn_at
products.beneficiary api update ended_at
products.beneficiary worker update ended_at
products.dependant api update ended_at
products.dependant worker update ended_at
products.device api update revoked_at
products.device worker update revoked_at
products.enrolment api update ended_at
products.enrolment worker update ended_at
products.member api update birth_date sex origin_country residence_country given_name family_name
products.member worker update wrapped_key erased_at
products.member_document api update ended_at
products.member_document worker update number_index ended_at
products.member_verification api update ended_at
products.member_verification worker update ended_at
products.member_link api update ended_at
products.member_link worker update phone phone_index partner_reference partner_reference_index ended_at
products.notice api update message next_try_at tries sent_at
products.notice worker update message next_try_at tries sent_at
products.payee api update released_at removed_at
products.payee worker update payee_index released_at removed_at
products.waiting_change api update cancelled_at cancelled_by
products.waiting_change worker update phone phone_index former_phone_index cancelled_at cancelled_by applied_at
products.programme_version worker update reevaluated
products.reevaluation api insert id member_id requested_at
products.partner_warning worker update ended_at
products.settlement worker update paired unidentified contributions state fees credits topped_up parts return_reason returned_on carried
products.settlement_difference api update state remark explained_by explained_at
products.settlement_difference worker update state remark explained_by explained_at
products.settlement_part worker update returned_at
products.receipt worker update state settlement_id ended_at
products.pairing_effect worker update undone_at balanced_by
products.agency worker update number_document without_number second_person_above columns answer changed_at
products.break worker update type partner_id amount on_date facts details state owner waits_until remark ended_at
products.break_limit worker update second_person_above changed_at
products.break_resolution worker update state remark confirmed_by confirmed_at approved_by transactions pairings undone_by undone_at undone_remark
products.opening_load worker update done state committed_by committed_at final_by final_at taken_back_by taken_back_at taken_back_because
products.opening_row worker update transaction_id reversal_id
products.claim_pack worker update state certification certified_on certified_at booked_lines booked_at
products.remittal worker update state bank_reference sent_on sent_at cleared_on cleared_at
products.remittal_line worker update state accepted claimed reason corrected_number answered_at
"""
"""On columns: table, role, privilege, columns."""

OWN = "partner_id = setting mizan.partner OR setting mizan.access = 'staff'"
HOOK = "partner_id = setting mizan.partner OR setting mizan.access = ANY (ARRAY['staff', 'hook'])"

STAFF = (
    "setting mizan.access = 'staff' AND ((setting mizan.programmes IS NULL) OR"
    " (programme_id = ANY ((string_to_array(setting mizan.programmes, ','))[])))"
)
"""Staff, limited to their programmes where they are."""

TRIED = None
"""A condition that is longer than what it means: `test_partners_apart` tries what comes through it."""

POLICIES: dict[str, tuple[str, str, str | None]] = {
    "api.idempotent_answer": ("itself", "mizan_api", "client_id = setting mizan.client"),
    "integrations.delivery_queue": ("of_delivery", "mizan_api", TRIED),
    "ledger.fund": ("staff", "mizan_api", TRIED),
    "ledger.period_event": ("staff", "mizan_api", TRIED),
    "ledger.posting": ("journal", "mizan_api", TRIED),
    "ledger.transaction": ("journal", "mizan_api", TRIED),
    "ledger.bank_account": ("of_fund", "mizan_api", TRIED),
    **dict.fromkeys(
        ("ledger.bank_counterparty", "ledger.bank_statement", "ledger.statement_line"),
        ("of_account", "mizan_api", TRIED),
    ),
    **dict.fromkeys(
        ("ledger.statement_file", "ledger.statement_piece"), ("of_statement", "mizan_api", TRIED)
    ),
    **dict.fromkeys(
        (
            "ledger.item",
            "ledger.paired_item",
            "ledger.paired_line",
            "ledger.pairing",
            "ledger.pairing_rules",
            "ledger.pairing_run",
        ),
        ("staff", "mizan_api", TRIED),
    ),
    **{f"integrations.payment_{name}": ("of_rail", "mizan_api", TRIED) for name in ("answer", "file")},
    **dict.fromkeys(
        (
            "integrations.payment_answer_line",
            "integrations.payment_file_line",
            "products.settlement_difference",
            "products.settlement_file_line",
        ),
        ("of_file", "mizan_api", TRIED),
    ),
    "products.partner": ("itself", "mizan_api", TRIED),
    "products.rail": ("of_programme", "mizan_api", TRIED),
    "products.rail_report": (
        "staff",
        "mizan_api",
        "setting mizan.access = 'staff' AND (EXISTS ( SELECT FROM products.rail r WHERE r.id = rail_report.rail_id))",
    ),
    **dict.fromkeys(("products.pairing_effect", "products.receipt"), ("staff", "mizan_api", TRIED)),
    "products.rail_breaker": (
        "of_rail",
        "mizan_api",
        "EXISTS ( SELECT FROM products.rail r WHERE r.id = rail_breaker.rail_id)",
    ),
    **{
        f"products.{name}": (
            "of_payout",
            "mizan_api",
            f"EXISTS ( SELECT FROM products.payout p WHERE p.id = {name}.payout_id)",
        )
        for name in ("payout_attempt", "payout_change", "payout_part")
    },
    "products.sponsor": ("of_programme", "mizan_api", TRIED),
    **{
        f"products.{name}": ("of_enrolment", "mizan_api", TRIED)
        for name in (
            "forfeiture",
            "match_adjustment",
            "match_queue",
            "match_share",
            "match_state",
            "withdrawal",
        )
    },
    "integrations.delivery": ("own_rows", "public", HOOK),
    "integrations.delivery_outcome": ("own_rows", "public", HOOK),
    "integrations.webhook_secret": ("own_rows", "public", HOOK),
    **{
        f"integrations.{name}": ("own_rows", "public", OWN)
        for name in (
            "endpoint_secret",
            "event",
            "event_attempt",
            "event_delivery",
            "event_stream",
            "webhook_endpoint",
        )
    },
    "api.oauth_client": ("itself", "public", "id = setting mizan.client"),
    "api.client_key": ("itself", "public", "client_id = setting mizan.client"),
    "api.client_secret": ("itself", "public", "client_id = setting mizan.client"),
    "ledger.account": ("partner", "mizan_api", OWN),
    "ledger.audit_entry": ("staff", "mizan_api", STAFF),
    **{
        f"products.{name}": ("staff", "mizan_api", STAFF)
        for name in ("agency", "claim_line", "claim_pack", "remittal", "remittal_answer")
    },
    **{f"products.{name}": ("staff", "mizan_api", STAFF) for name in ("break", "break_limit")},
    **{
        f"products.{name}": (
            "of_break",
            "mizan_api",
            f"EXISTS ( SELECT FROM products.break b WHERE b.id = {name}.break_id)",
        )
        for name in ("break_event", "break_resolution")
    },
    **{f"products.{name}": ("staff", "mizan_api", STAFF) for name in ("close", "close_explanation")},
    "products.close_file": (
        "of_close",
        "mizan_api",
        "EXISTS ( SELECT FROM products.close c WHERE c.id = close_file.close_id)",
    ),
    "products.opening_load": ("staff", "mizan_api", STAFF),
    **{
        f"products.{name}": (
            "of_load",
            "mizan_api",
            f"EXISTS ( SELECT FROM products.opening_load l WHERE l.id = {name}.load_id)",
        )
        for name in ("opening_row", "opening_window")
    },
    "ledger.verification": ("staff", "mizan_api", TRIED),
    "products.remittal_line": ("own_rows", "public", OWN),
    "api.approval_request": ("staff", "mizan_api", STAFF),
    **{
        f"ledger.{name}": (
            "partner",
            "mizan_api",
            f"EXISTS ( SELECT FROM ledger.account a WHERE a.id = {name}.account_id)",
        )
        for name in ("account_balance", "account_day", "account_month", "hold")
    },
    **{
        f"products.{name}": ("own_rows", "public", OWN)
        for name in (
            "beneficiary",
            "consent",
            "contribution",
            "dependant",
            "enrolment",
            "identity_index",
            "member_document",
            "member_fact",
            "member_link",
            "member_verification",
            "partner_programme",
            "partner_warning",
            "payout",
            "quote",
            "remittance",
            "remittance_claim",
            "settlement",
            "settlement_credit",
            "settlement_file",
            "settlement_mapping",
            "settlement_terms",
        )
    },
    "products.member": (
        "linked_rows",
        "public",
        "EXISTS ( SELECT 1 FROM products.member_link l WHERE l.member_id = member.id)",
    ),
    **{
        f"products.{name}": (
            "linked_rows",
            "public",
            f"EXISTS ( SELECT 1 FROM products.member_link l WHERE l.id = {name}.link_id)",
        )
        for name in ("challenge", "device", "link_offer", "notice", "payee", "waiting_change")
    },
}
"""Row-level security: the policy of each guarded table that says whose its rows are; auditors read every row."""

NARROWED = {
    "products.remittal_line": "ALL",
    "integrations.delivery": "SELECT",
    "integrations.delivery_outcome": "SELECT",
    "integrations.webhook_secret": "SELECT",
    **{
        f"integrations.{name}": "ALL"
        for name in (
            "endpoint_secret",
            "event",
            "event_attempt",
            "event_delivery",
            "event_stream",
            "webhook_endpoint",
        )
    },
    "ledger.account": "ALL",
    **{
        f"products.{name}": "ALL"
        for name in (
            "beneficiary",
            "consent",
            "contribution",
            "dependant",
            "enrolment",
            "member_document",
            "member_fact",
            "member_link",
            "member_verification",
            "partner",
            "partner_programme",
            "partner_warning",
            "payout",
            "quote",
            "remittance",
            "remittance_claim",
            "settlement",
            "settlement_credit",
            "settlement_file",
            "settlement_mapping",
            "settlement_terms",
        )
    },
}
"""Tables with a restrictive policy beside it: what a request of one member, or of single programmes, must not see."""

WHOLE = {f"products.{name}" for name in ("contribution", "enrolment", "member", "remittance")} | {
    "ledger.account"
}
"""What is seen beyond a partner's own with the member's consent to the whole account, and only read."""

SEALED = {"ledger.audit_entry", "ledger.posting", "ledger.transaction"}
"""What the sealer reads."""

READ_ALONE = {"ledger.posting", "ledger.transaction", "integrations.delivery_queue"}
"""Tables whose policy is for reading; the queue's for inserting, which the hook does, asks for nothing."""

WRITTEN_BY_ALL = {"ledger.audit_entry"}
"""Rows that anybody writes, whoever may see them: what a partner was refused is in the log too."""

NO_AUDITOR = {
    "api.idempotent_answer",
    "api.client_key",
    "api.client_secret",
    "api.oauth_client",
    "integrations.endpoint_secret",
    "integrations.webhook_secret",
    "products.identity_index",
}
"""Guarded tables that auditors have no business in."""

GROWS = "before delete update truncate statement ledger.refuse"
CHANGES = "before delete truncate statement ledger.refuse"
RECEIVED = "before delete update truncate statement integrations.refuse_change"

TRIGGERS = {
    ("integrations.delivery", "delivery_append_only"): RECEIVED,
    ("integrations.delivery_outcome", "delivery_outcome_append_only"): RECEIVED,
    ("ledger.account", "account_changed"): "before update row ledger.account_changed",
    ("ledger.account", "account_opened"): "after insert statement ledger.account_opened",
    ("ledger.account", "only_changes"): CHANGES,
    ("ledger.account_balance", "only_changes"): CHANGES,
    ("ledger.bank_account", "only_changes"): CHANGES,
    ("ledger.bank_counterparty", "only_changes"): CHANGES,
    ("ledger.bank_statement", "only_changes"): CHANGES,
    ("ledger.bank_statement", "withdrawn_once"): "before update row ledger.refuse",
    ("ledger.statement_file", "only_changes"): CHANGES,
    ("ledger.statement_line", "only_changes"): CHANGES,
    ("ledger.statement_line", "withdrawn_stays"): "before update row ledger.refuse",
    ("ledger.fund", "fund_changed"): "before update row ledger.fund_changed",
    ("ledger.fund", "only_changes"): CHANGES,
    ("ledger.hold", "hold_changed"): "before update row ledger.hold_changed",
    ("ledger.hold", "hold_ended"): "after update statement ledger.hold_ended",
    ("ledger.hold", "hold_placed"): "after insert statement ledger.hold_placed",
    ("ledger.hold", "only_changes"): CHANGES,
    ("ledger.audit_entry", "only_grows"): GROWS,
    ("api.approval_request", "decided_once"): "before update row api.refuse_second_decision",
    ("api.approval_request", "only_changes"): CHANGES,
    ("ledger.item", "as_posted"): "before update row ledger.refuse_item_change",
    ("ledger.item", "only_changes"): CHANGES,
    ("ledger.pairing", "made"): "after insert statement ledger.pairing_made",
    ("ledger.pairing", "only_changes"): CHANGES,
    ("ledger.pairing", "undone"): "after update statement ledger.pairing_undone",
    ("ledger.pairing", "undone_once"): "before update row ledger.refuse_pairing_change",
    ("ledger.pairing_rules", "only_grows"): GROWS,
    ("ledger.pairing_run", "only_grows"): GROWS,
    ("ledger.period_event", "only_grows"): GROWS,
    ("ledger.period_event", "fund_reopened"): "after insert row products.fund_reopened",
    ("ledger.posting", "only_grows"): GROWS,
    ("ledger.posting", "posting_inserted"): "after insert statement ledger.posting_inserted",
    ("ledger.reference", "only_grows"): "before update truncate statement ledger.refuse",
    ("ledger.seal", "only_grows"): GROWS,
    ("ledger.seal_key", "only_grows"): GROWS,
    ("ledger.transaction", "only_grows"): GROWS,
    ("ledger.verification", "one_verdict"): "before update row ledger.refuse_second_verdict",
    ("ledger.verification", "only_changes"): CHANGES,
    ("products.break", "only_changes"): CHANGES,
    ("products.break_event", "only_grows"): GROWS,
    ("products.break_resolution", "only_changes"): CHANGES,
    ("products.claim_line", "only_grows"): GROWS,
    ("products.claim_line", "only_of_a_new_pack"): "after insert statement products.refuse_claim_line",
    ("products.claim_pack", "only_changes"): CHANGES,
    ("products.claim_pack", "pack_is_immutable"): "before update row products.refuse_claim_change",
    ("products.close", "only_changes"): CHANGES,
    ("products.close", "only_reopens"): "before update row products.close_changed",
    ("products.close_explanation", "only_grows"): GROWS,
    ("products.close_file", "only_grows"): GROWS,
    ("products.opening_load", "only_changes"): CHANGES,
    ("products.opening_row", "only_changes"): CHANGES,
    ("products.opening_row", "only_posted"): "before update row products.opening_row_changed",
    ("products.opening_window", "only_grows"): GROWS,
    ("products.programme_version", "version_is_immutable"): (
        "before delete update row products.refuse_version_change"
    ),
}
"""On each partition of the journal there is one more, which refuses inserts too."""

PRIVILEGED = {
    "api.note_session": "api worker",
    "api.opened_session": "api worker",
    "api.standing": "api worker",
    "integrations.prune_outbox": "worker",
    "products.fund_reopened": "",
    "products.owned_by": "api",
    "products.seen_funds": "api",
    "products.whole_members": "api",
    "products.seen_member": "api",
    "products.seen_member_programme": "api",
    "ledger.account_opened": "",
    "ledger.lines_of": "api worker auditor",
    "ledger.moved_since": "api worker auditor",
    "ledger.reached": "api",
    "ledger.seen": "",
    "ledger.close_account": "worker",
    "ledger.ensure_partitions": "worker",
    "ledger.hold_ended": "",
    "ledger.hold_placed": "",
    "ledger.lock_accounts": "api worker",
    "ledger.move_period": "api worker",
    "ledger.pairing_made": "",
    "ledger.pairing_undone": "",
    "ledger.posting_inserted": "",
    "ledger.release_references": "worker",
    "ledger.set_limits": "worker",
    "ledger.share_books": "api worker",
    "products.codes_sent": "api worker",
    "products.join_persons": "api worker",
    "products.leave_person": "api worker",
    "products.stop_change": "api worker",
    "products.take_try": "api worker",
}
"""Functions that run with their owner's rights, and who may call them; triggers are called by nobody."""


def rows(databases: Databases, query: str) -> Sequence[Any]:
    with databases.superuser.begin() as tx:
        return tx.execute(text(query), {"schemas": SCHEMAS} if ":schemas" in query else {}).all()


def lines(table: str) -> list[str]:
    return [" ".join(line.split()) for line in table.strip().splitlines()]


def test_each_role_may_do_to_each_table_what_is_meant(databases: Databases) -> None:
    granted = rows(
        databases,
        """SELECT n.nspname || '.' || c.relname, pg_get_userbyid(a.grantee), a.privilege_type
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(c.relacl) a
           WHERE n.nspname = ANY (:schemas) AND a.grantee <> c.relowner""",
    )
    letters = {"SELECT": "r", "INSERT": "a", "UPDATE": "w", "DELETE": "d"}
    found: dict[str, dict[str, str]] = {}
    for table, role, privilege in granted:
        of_table = found.setdefault(table, {})
        of_table[role.removeprefix("mizan_")] = (
            of_table.get(role.removeprefix("mizan_"), "") + letters[privilege]
        )
    roles = ["api", "worker", "sealer", "auditor"]
    assert {role for of_table in found.values() for role in of_table} == set(roles)
    assert [
        " ".join([table, *(f"{r}={''.join(sorted(has[r], key='rawd'.index))}" for r in roles if r in has)])
        for table, has in sorted(found.items())
    ] == lines(GRANTS)


def test_each_role_may_write_the_columns_that_are_meant(databases: Databases) -> None:
    granted = rows(
        databases,
        """SELECT n.nspname || '.' || c.relname, replace(pg_get_userbyid(x.grantee), 'mizan_', ''),
                  lower(x.privilege_type), string_agg(a.attname, ' ' ORDER BY a.attnum)
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL aclexplode(a.attacl) x WHERE n.nspname = ANY (:schemas) GROUP BY 1, 2, 3""",
    )
    assert sorted(" ".join(row) for row in granted) == sorted(lines(COLUMN_GRANTS))


def test_rows_of_people_and_partners_are_guarded(databases: Databases) -> None:
    guarded = rows(
        databases,
        """SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = ANY (:schemas) AND c.relrowsecurity""",
    )
    assert {row[0] for row in guarded} == set(POLICIES)
    policies = rows(
        databases,
        """SELECT schemaname || '.' || tablename, policyname, roles[1], cmd, permissive, qual, with_check, cardinality(roles)
           FROM pg_policies WHERE schemaname = ANY (:schemas)""",
    )
    having = {name: {row[0] for row in policies if row[1] == name} for name in {row[1] for row in policies}}
    assert having["auditor"] == set(POLICIES) - NO_AUDITOR
    assert (having["whole"], having["sealer"]) == (WHOLE, SEALED)
    assert {row[0]: row[3] for row in policies if row[1] == "narrowed"} == NARROWED
    for table, name, role, command, permissive, condition, check, roles in policies:
        assert (permissive, roles) == ("RESTRICTIVE" if name == "narrowed" else "PERMISSIVE", 1)
        if name in ("auditor", "sealer"):
            assert (role, command, condition, check) == (f"mizan_{name}", "SELECT", "true", None)
        elif name in ("narrowed", "whole"):
            assert (role, check) == ("mizan_api", None)
            assert name == "narrowed" or command == "SELECT"
        elif (table, name) == ("integrations.delivery_queue", "received"):
            assert (role, command, condition, check) == ("mizan_api", "INSERT", None, "true")
        else:
            assert check == ("true" if table in WRITTEN_BY_ALL else None)
            assert command == ("SELECT" if table in READ_ALONE else "ALL")
            meant = POLICIES[table]
            assert (name, role) == meant[:2]
            assert meant[2] in (TRIED, _plain(condition))


def _plain(condition: str) -> str:
    """A policy's condition without the catalogue's casts and brackets."""
    plain = " ".join(condition.replace("::text", "").replace("::uuid", "").split())
    for setting in ("partner", "access", "client", "programmes"):
        bare = f"current_setting('mizan.{setting}', true)"
        plain = plain.replace(f"(NULLIF({bare}, ''))", f"setting mizan.{setting}")
        plain = plain.replace(f"NULLIF({bare}, '')", f"setting mizan.{setting}")
        plain = plain.replace(bare, f"setting mizan.{setting}")
    plain = plain.removeprefix("(").removesuffix(")")
    for bracketed in ("partner_id = setting mizan.partner", "setting mizan.access = 'staff'"):
        plain = plain.replace(f"({bracketed})", bracketed)
    plain = plain.replace("(setting mizan.access = ANY (ARRAY['staff', 'hook']))", HOOK.partition(" OR ")[2])
    head, where, tail = plain.partition(" WHERE (")
    return f"{head} WHERE {tail.replace('))', ')')}" if where else plain


def test_triggers_stand_where_they_are_meant_to(databases: Databases) -> None:
    found = rows(
        databases,
        """SELECT n.nspname || '.' || c.relname, t.tgname, concat_ws(' ',
                  CASE WHEN t.tgtype & 2 = 2 THEN 'before' ELSE 'after' END,
                  CASE WHEN t.tgtype & 4 = 4 THEN 'insert' END, CASE WHEN t.tgtype & 8 = 8 THEN 'delete' END,
                  CASE WHEN t.tgtype & 16 = 16 THEN 'update' END, CASE WHEN t.tgtype & 32 = 32 THEN 'truncate' END,
                  CASE WHEN t.tgtype & 1 = 1 THEN 'row' ELSE 'statement' END, f.nspname || '.' || p.proname),
                  t.tgenabled
           FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace f ON f.oid = p.pronamespace
           WHERE n.nspname = ANY (:schemas) AND NOT t.tgisinternal AND NOT c.relispartition""",
    )
    assert {(table, name): what for table, name, what, _ in found} == TRIGGERS
    assert {row[3] for row in found} == {"O"}


def test_partitions_of_the_journal_belong_to_nobody_who_logs_in_and_refuse_everything(
    databases: Databases,
) -> None:
    partitions = rows(
        databases,
        """SELECT c.relname, pg_get_userbyid(c.relowner), c.relacl IS NULL OR NOT EXISTS (
                      SELECT 1 FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner),
                  (SELECT array_agg(t.tgtype) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                                                                 AND t.tgenabled = 'O')
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
           WHERE c.relkind = 'r' AND c.relnamespace = 'ledger'::regnamespace""",
    )
    named = {row[0] for row in partitions}
    assert {"posting_default", "transaction_default"} <= named
    assert len(named) >= 10  # this month and three more, and the default, of each
    before_everything = 2 | 4 | 8 | 16 | 32
    assert {(row[1], row[2], tuple(row[3])) for row in partitions} == {
        ("mizan_journal", True, (before_everything,))
    }


def test_everything_else_belongs_to_the_owner_and_no_role_has_more_power_than_is_meant(
    databases: Databases,
) -> None:
    owners = rows(
        databases,
        """SELECT DISTINCT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = ANY (:schemas) AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'S')""",
    )
    assert [row[0] for row in owners] == ["mizan_owner"]
    powers = rows(
        databases,
        """SELECT rolname, concat_ws(' ', CASE WHEN rolsuper THEN 'super' END, CASE WHEN rolbypassrls THEN 'bypassrls' END,
                  CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolcreatedb THEN 'createdb' END,
                  CASE WHEN rolreplication THEN 'replication' END)
           FROM pg_roles WHERE rolname LIKE 'mizan\\_%' AND rolname <> 'mizan_superuser'""",
    )
    assert dict(tuple(row) for row in powers) == {
        "mizan_owner": "",
        "mizan_journal": "",
        "mizan_api": "",
        "mizan_worker": "bypassrls",
        "mizan_sealer": "",
        "mizan_auditor": "",
    }


def test_functions_with_their_owners_rights_are_few_and_fix_their_search_path(databases: Databases) -> None:
    found = rows(
        databases,
        """SELECT n.nspname || '.' || p.proname, array_to_string(p.proconfig, ','), pg_get_userbyid(p.proowner),
                  p.prorettype = 'trigger'::regtype,
                  coalesce((SELECT string_agg(replace(pg_get_userbyid(a.grantee), 'mizan_', ''), ' ' ORDER BY 1)
                            FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                            WHERE a.grantee NOT IN (0, p.proowner)), ''),
                  EXISTS (SELECT 1 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                          WHERE a.grantee = 0)
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname = ANY (:schemas) AND p.prosecdef""",
    )
    assert {row[0]: row[4] for row in found} == PRIVILEGED
    for name, settings, owner, is_trigger, _, public in found:
        assert settings.startswith("search_path=pg_catalog, pg_temp"), name
        assert owner == "mizan_owner"
        assert public == is_trigger, name  # a trigger's function runs as a trigger only


def test_the_models_describe_what_the_migrations_build(databases: Databases) -> None:
    assert differences(databases.urls["owner"]) == []


@pytest.mark.parametrize("schema", SCHEMAS)
def test_nobody_but_the_owner_creates_anything(databases: Databases, schema: str) -> None:
    may = rows(
        databases,
        f"""SELECT replace(r.rolname, 'mizan_', '') FROM pg_roles r
            WHERE r.rolname LIKE 'mizan\\_%' AND NOT r.rolsuper
              AND has_schema_privilege(r.oid, '{schema}', 'CREATE')""",
    )
    # the journal's role owns its partitions, which takes the right to have tables there
    assert {row[0] for row in may} == ({"owner", "journal"} if schema == "ledger" else {"owner"})
