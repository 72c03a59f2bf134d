"""What tokens need: clients' public keys, used token ids, revocations, and where a token stands in one statement."""

from alembic import op

revision = "0006_tokens"
down_revision = "0005_access"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create what tokens are proved, remembered and ended by."""
    op.execute("""
        -- A token carries its client's generation; raising it ends all that were issued before.
        ALTER TABLE api.oauth_client ADD COLUMN generation integer NOT NULL DEFAULT 0;

        -- The public keys (JWK, P-256) by which a client proves itself and vouches for members. Several may be valid at
        -- once, so that a key is changed without an outage. One that was removed stays known and never comes back.
        CREATE TABLE api.client_key (
            client_id uuid NOT NULL REFERENCES api.oauth_client,
            kid text COLLATE "C" NOT NULL,
            public_key jsonb NOT NULL,
            created_at timestamptz NOT NULL,
            removed_at timestamptz,
            PRIMARY KEY (client_id, kid)
        );
        ALTER TABLE api.client_key ENABLE ROW LEVEL SECURITY;
        CREATE POLICY itself ON api.client_key
            USING (client_id = nullif(current_setting('mizan.client', true), '')::uuid);
        GRANT SELECT ON api.client_key TO mizan_api;
        GRANT SELECT, INSERT ON api.client_key TO mizan_worker;
        GRANT UPDATE (removed_at) ON api.client_key TO mizan_worker;

        -- Client assertions and subject tokens that were used, by the digest of their issuer and jti, for as long as they
        -- could be sent again. Nobody needs to read it: what is there already can't be inserted.
        CREATE TABLE api.used_jti (
            digest bytea PRIMARY KEY CHECK (length(digest) = 32),
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX used_jti_expiry ON api.used_jti (expires_at);
        GRANT INSERT ON api.used_jti TO mizan_api;
        GRANT SELECT, INSERT, DELETE ON api.used_jti TO mizan_worker;

        -- Access tokens that were revoked, for as long as they would have lived.
        CREATE TABLE api.revoked_token (
            token_id uuid PRIMARY KEY,
            client_id uuid NOT NULL REFERENCES api.oauth_client,
            expires_at timestamptz NOT NULL
        );
        CREATE INDEX revoked_token_expiry ON api.revoked_token (expires_at);
        GRANT INSERT ON api.revoked_token TO mizan_api;
        GRANT SELECT, INSERT, DELETE ON api.revoked_token TO mizan_worker
    """)
    op.execute("""
        -- Where a token stands now, in one statement: its client, if that and its partner are active and neither this token
        -- nor all of its generation were revoked; for a member's, if the link lasts and the consent by which the partner
        -- shows what came through it is in force too. With its owner's rights: a request has none on these tables yet.
        -- A partner's request, and a member's, is thereby told whose rows it sees (`api.auth.actors.Sight`); what staff
        -- see depends on the route.
        CREATE FUNCTION api.standing(the_client uuid, the_token uuid, the_generation integer, the_member uuid,
                                     the_moment timestamptz)
            RETURNS TABLE (id uuid, name text, partner_id uuid, roles text[], scopes text[], generation integer)
            LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            SELECT c.id, c.name, c.partner_id, c.roles, c.scopes, c.generation
            INTO id, name, partner_id, roles, scopes, generation
            FROM api.oauth_client c LEFT JOIN products.partner p ON p.id = c.partner_id
            WHERE c.id = the_client AND c.state = 'active' AND c.generation = the_generation
              AND (c.partner_id IS NULL OR p.state = 'active')
              AND NOT EXISTS (SELECT FROM api.revoked_token r WHERE r.token_id = the_token)
              AND (the_member IS NULL OR EXISTS (
                  SELECT FROM products.member_link l
                  JOIN products.member m ON m.id = l.member_id
                  JOIN products.consent k ON k.member_id = l.member_id AND k.partner_id = l.partner_id
                  WHERE l.id = the_member AND l.partner_id = c.partner_id AND l.ended_at IS NULL
                    AND m.erased_at IS NULL AND k.withdrawn_at IS NULL
                    -- the column comes with 0007; the clocks of two processes may differ a little
                    AND k.purpose = 'contributions' AND k.given_at <= the_moment + interval '30 seconds'));
            IF NOT FOUND THEN
                RETURN;
            END IF;
            IF partner_id IS NOT NULL THEN
                PERFORM set_config('mizan.partner', partner_id::text, true),
                        set_config('mizan.member', coalesce(the_member::text, ''), true),
                        set_config('mizan.client', id::text, true);
            END IF;
            RETURN NEXT;
        END $$;
        REVOKE ALL ON FUNCTION api.standing FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION api.standing TO mizan_api, mizan_worker
    """)


def downgrade() -> None:
    """Refused: the books are append-only; restore a backup instead."""
    raise NotImplementedError("there is no way down: restore a backup instead")
