"""The member's proof: challenges, devices, waiting changes and their notices, payees, persons across partners.

All rows hang on a link, and are visible to whom the link is. What no caller may decide is decided by functions that run
with the owner's rights: tries only grow, the codes sent to a phone are counted over all partners without showing any, and who
is one person with whom is readable to no partner.
"""

from alembic import op

revision = "0008_proofs"
down_revision = "0007_registry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and functions of the member's proof."""
    _challenges()
    _devices_and_payees()
    _waiting_changes()
    _persons()
    for table in ("challenge", "device", "payee", "waiting_change", "notice", "link_offer"):
        op.execute(f"""
            ALTER TABLE products.{table} ENABLE ROW LEVEL SECURITY;
            -- the subquery is itself under member_link's policy
            CREATE POLICY linked_rows ON products.{table}
                USING (EXISTS (SELECT 1 FROM products.member_link l WHERE l.id = {table}.link_id));
            CREATE POLICY auditor ON products.{table} FOR SELECT TO mizan_auditor USING (true);
            GRANT SELECT ON products.{table} TO mizan_auditor
        """)
    op.execute("GRANT SELECT ON products.challenge_try, products.person_member TO mizan_auditor")


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")


def _challenges() -> None:
    op.execute("""
        -- What a member is asked to prove, once: bound to the link, the purpose and a digest of the action. Of a code only a
        -- keyed MAC is kept. sending: none (a device answers), asked, sent, failed, withheld (the phone has had enough).
        CREATE TABLE products.challenge (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            purpose text NOT NULL,
            subject_digest bytea NOT NULL CHECK (length(subject_digest) = 32),
            method text NOT NULL CHECK (method IN ('code', 'device')),
            nonce bytea NOT NULL CHECK (length(nonce) = 32),
            code_mac bytea CHECK (length(code_mac) = 32),
            phone_index bytea,
            sending text NOT NULL CHECK (sending IN ('none', 'asked', 'sent', 'failed', 'withheld')),
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            used_at timestamptz,
            CHECK ((method = 'code') = (code_mac IS NOT NULL))
        );
        CREATE INDEX challenge_of_link ON products.challenge (link_id, created_at);
        CREATE INDEX challenge_of_phone ON products.challenge (phone_index, created_at) WHERE phone_index IS NOT NULL;

        -- Apart from the challenge, so that counting a try waits for nobody who is using it.
        CREATE TABLE products.challenge_try (
            challenge_id uuid PRIMARY KEY REFERENCES products.challenge,
            tries integer NOT NULL CHECK (tries > 0)
        );

        -- Count one more try and say the how manieth it is; null for what is no challenge. Nothing takes a try back.
        CREATE FUNCTION products.take_try(challenge uuid) RETURNS integer
            LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            INSERT INTO products.challenge_try AS t (challenge_id, tries)
            SELECT c.id, 1 FROM products.challenge c WHERE c.id = take_try.challenge
            ON CONFLICT (challenge_id) DO UPDATE SET tries = t.tries + 1
            RETURNING tries
        $$;
        -- How many codes went to a phone since then, whoever asked for them. Says nothing of who that was.
        CREATE FUNCTION products.codes_sent(phone bytea, since timestamptz) RETURNS bigint
            LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            SELECT count(*) FROM products.challenge
            WHERE phone_index = codes_sent.phone AND created_at > codes_sent.since AND sending <> 'withheld'
        $$;
        REVOKE ALL ON FUNCTION products.take_try(uuid), products.codes_sent(bytea, timestamptz) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION products.take_try(uuid), products.codes_sent(bytea, timestamptz)
            TO mizan_api, mizan_worker;

        GRANT SELECT, INSERT ON products.challenge TO mizan_api, mizan_worker;
        GRANT UPDATE (used_at, sending) ON products.challenge TO mizan_api, mizan_worker;
        GRANT UPDATE (phone_index) ON products.challenge TO mizan_worker
    """)


def _devices_and_payees() -> None:
    op.execute("""
        -- A P-256 key that lives in the member's device; public_key is the uncompressed point.
        CREATE TABLE products.device (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            name bytea NOT NULL,
            public_key bytea NOT NULL CHECK (length(public_key) = 65),
            registered_at timestamptz NOT NULL,
            revoked_at timestamptz
        );
        CREATE INDEX device_of_member ON products.device (member_id);
        CREATE UNIQUE INDEX device_active ON products.device (link_id, public_key) WHERE revoked_at IS NULL;

        -- Where a member's money may be paid. A proposal until the member's proof released it.
        CREATE TABLE products.payee (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            beneficiary_id uuid,
            name bytea NOT NULL,
            rail text NOT NULL CHECK (rail IN ('mobile_money', 'bank', 'card')),
            destination bytea NOT NULL,
            payee_index bytea,
            proposed_at timestamptz NOT NULL,
            released_at timestamptz,
            removed_at timestamptz
        );
        CREATE INDEX payee_of_member ON products.payee (member_id);
        CREATE UNIQUE INDEX payee_active ON products.payee (link_id, payee_index) WHERE removed_at IS NULL;

        GRANT SELECT, INSERT ON products.device, products.payee TO mizan_api, mizan_worker;
        GRANT UPDATE (revoked_at) ON products.device TO mizan_api, mizan_worker;
        GRANT UPDATE (released_at, removed_at) ON products.payee TO mizan_api, mizan_worker;
        GRANT UPDATE (payee_index) ON products.payee TO mizan_worker
    """)


def _waiting_changes() -> None:
    op.execute("""
        -- A new phone, device or payee: in effect from effective_at unless it was cancelled before.
        CREATE TABLE products.waiting_change (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            kind text NOT NULL CHECK (kind IN ('phone', 'device', 'payee')),
            subject_id uuid,
            phone bytea,
            phone_index bytea,
            former_phone_index bytea,
            cancel_digest bytea NOT NULL UNIQUE,
            asked_at timestamptz NOT NULL,
            effective_at timestamptz NOT NULL CHECK (effective_at > asked_at),
            cancelled_at timestamptz,
            cancelled_by text CHECK (cancelled_by IN ('member', 'contact', 'replaced', 'removed', 'phone_taken')),
            applied_at timestamptz,
            CHECK ((kind = 'phone') = (subject_id IS NULL)),
            CHECK ((cancelled_at IS NULL) = (cancelled_by IS NULL)),
            CHECK (cancelled_at IS NULL OR applied_at IS NULL)
        );
        CREATE UNIQUE INDEX waiting_change_subject ON products.waiting_change (subject_id);
        CREATE UNIQUE INDEX waiting_change_one_phone ON products.waiting_change (link_id)
            WHERE kind = 'phone' AND cancelled_at IS NULL AND applied_at IS NULL;
        CREATE INDEX waiting_change_of_link ON products.waiting_change (link_id, kind, asked_at);
        CREATE INDEX waiting_change_due ON products.waiting_change (effective_at)
            WHERE cancelled_at IS NULL AND applied_at IS NULL;
        CREATE INDEX waiting_change_phone ON products.waiting_change (phone_index) WHERE phone_index IS NOT NULL;
        CREATE INDEX waiting_change_former_phone ON products.waiting_change (former_phone_index)
            WHERE former_phone_index IS NOT NULL;

        -- What the member's old contact is told. message is encrypted under the member's key and dropped once sent; without
        -- one there was no phone to send it to, and only the list of notices shows it.
        CREATE TABLE products.notice (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            change_id uuid REFERENCES products.waiting_change,
            kind text NOT NULL,
            message bytea,
            created_at timestamptz NOT NULL,
            next_try_at timestamptz,
            tries smallint NOT NULL DEFAULT 0,
            sent_at timestamptz
        );
        CREATE INDEX notice_of_link ON products.notice (link_id, id);
        CREATE INDEX notice_unsent ON products.notice (next_try_at) WHERE next_try_at IS NOT NULL;

        -- Whoever holds the secret of a notice's link stops what it told of: the old contact needs no partner for it.
        CREATE FUNCTION products.stop_change(digest bytea, at timestamptz) RETURNS TABLE (change uuid, kind text)
            LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            UPDATE products.waiting_change w SET cancelled_at = stop_change.at, cancelled_by = 'contact'
            WHERE w.cancel_digest = stop_change.digest AND w.cancelled_at IS NULL AND w.applied_at IS NULL
              AND stop_change.at < w.effective_at
            RETURNING w.id, w.kind
        $$;
        REVOKE ALL ON FUNCTION products.stop_change(bytea, timestamptz) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION products.stop_change(bytea, timestamptz) TO mizan_api, mizan_worker;

        GRANT SELECT, INSERT ON products.waiting_change, products.notice TO mizan_api, mizan_worker;
        GRANT UPDATE (cancelled_at, cancelled_by) ON products.waiting_change TO mizan_api, mizan_worker;
        GRANT UPDATE (applied_at, phone, phone_index, former_phone_index) ON products.waiting_change TO mizan_worker;
        GRANT UPDATE (message, next_try_at, tries, sent_at) ON products.notice TO mizan_api, mizan_worker
    """)


def _persons() -> None:
    op.execute("""
        -- Shown to the member in one partner's app, typed into another's: who knows the secret and proves both ends is one.
        CREATE TABLE products.link_offer (
            id uuid PRIMARY KEY,
            link_id uuid NOT NULL REFERENCES products.member_link,
            member_id uuid NOT NULL REFERENCES products.member,
            digest bytea NOT NULL UNIQUE,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            used_at timestamptz
        );
        -- Members that were proven to be one person. No partner reads it: the person's id would tell two of them.
        CREATE TABLE products.person_member (
            id uuid PRIMARY KEY,
            person_id uuid NOT NULL,
            member_id uuid NOT NULL REFERENCES products.member,
            link_id uuid NOT NULL REFERENCES products.member_link,
            joined_at timestamptz NOT NULL,
            left_at timestamptz
        );
        CREATE UNIQUE INDEX person_member_now ON products.person_member (member_id) WHERE left_at IS NULL;
        CREATE INDEX person_member_of ON products.person_member (person_id) WHERE left_at IS NULL;

        -- Take an offer and make its member and that of `link` one person; the members joined, or none when the offer is
        -- not there, used, expired, or the member's own. Both members' existing persons become one.
        CREATE FUNCTION products.join_persons(offered bytea, link uuid, row_ids uuid[], at timestamptz)
            RETURNS TABLE (link_id uuid, member_id uuid)
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        DECLARE
            offer products.link_offer;
            mine uuid;
            theirs_person uuid;
            mine_person uuid;
        BEGIN
            PERFORM pg_advisory_xact_lock(1298818383, 1);
            SELECT l.member_id INTO mine FROM products.member_link l WHERE l.id = link;
            UPDATE products.link_offer o SET used_at = at
            WHERE o.digest = offered AND o.used_at IS NULL AND at < o.expires_at AND o.member_id <> mine
            RETURNING o.* INTO offer;
            IF NOT FOUND THEN RETURN; END IF;
            SELECT p.person_id INTO theirs_person FROM products.person_member p
            WHERE p.member_id = offer.member_id AND p.left_at IS NULL;
            SELECT p.person_id INTO mine_person FROM products.person_member p
            WHERE p.member_id = mine AND p.left_at IS NULL;
            IF theirs_person IS NULL THEN
                theirs_person := coalesce(mine_person, row_ids[3]);
                INSERT INTO products.person_member
                VALUES (row_ids[1], theirs_person, offer.member_id, offer.link_id, at, NULL);
            END IF;
            IF mine_person IS NULL THEN
                INSERT INTO products.person_member VALUES (row_ids[2], theirs_person, mine, link, at, NULL);
            ELSIF mine_person <> theirs_person THEN
                UPDATE products.person_member p SET person_id = theirs_person
                WHERE p.person_id = mine_person AND p.left_at IS NULL;
            END IF;
            RETURN QUERY SELECT p.link_id, p.member_id FROM products.person_member p
                         WHERE p.person_id = theirs_person AND p.left_at IS NULL ORDER BY p.id;
        END $$;
        -- The member is a person of its own again. Answers all who were one person with it, and itself; none when it was one.
        CREATE FUNCTION products.leave_person(leaving uuid, at timestamptz) RETURNS SETOF uuid
            LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
            WITH gone AS (
                UPDATE products.person_member SET left_at = leave_person.at
                WHERE member_id = leave_person.leaving AND left_at IS NULL RETURNING person_id
            ) SELECT p.member_id FROM products.person_member p JOIN gone USING (person_id) WHERE p.left_at IS NULL
        $$;
        REVOKE ALL ON FUNCTION products.join_persons(bytea, uuid, uuid[], timestamptz),
            products.leave_person(uuid, timestamptz) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION products.join_persons(bytea, uuid, uuid[], timestamptz),
            products.leave_person(uuid, timestamptz) TO mizan_api, mizan_worker;

        GRANT SELECT, INSERT ON products.link_offer TO mizan_api, mizan_worker;
        GRANT SELECT ON products.person_member TO mizan_worker
    """)
