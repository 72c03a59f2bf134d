"""Show a member's balances, statement and last receipt: all that a partner's server has to do. Needs httpx and cryptography.

python partner_client.py mem_…    with MIZAN, CLIENT_ID, CLIENT_SECRET, KEY_FILE (P-256, PEM) and KID in the environment
"""

import base64
import json
import sys
import time
import uuid
from os import environ
from pathlib import Path

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

mizan = httpx.Client(base_url=environ["MIZAN"], timeout=10)
me = (environ["CLIENT_ID"], environ["CLIENT_SECRET"])
key = serialization.load_pem_private_key(Path(environ["KEY_FILE"]).read_bytes(), None)


def subject_token(member: str) -> str:
    """Our word, signed ES256, that this member is logged in with us; it counts once, within two minutes."""
    now = int(time.time())
    header = {"typ": "mizan-member+jwt", "alg": "ES256", "kid": environ["KID"]}
    claims = {"iss": me[0], "sub": member, "aud": environ["MIZAN"], "iat": now, "exp": now + 60}
    claims |= {"jti": str(uuid.uuid4()), "auth_time": now, "amr": ["pin"]}  # when and how they logged in
    b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()  # noqa: E731
    signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def get(token: str, path: str) -> dict:
    answer = mizan.get(path, headers={"Authorization": f"Bearer {token}"})
    if answer.is_error:
        problem = answer.json()
        sys.exit(f"{problem['code']}: {problem['detail']} (request {problem['request_id']})")
    return answer.json()


def token(**form: str) -> str:
    return mizan.post("/oauth/token", data=form, auth=me).raise_for_status().json()["access_token"]


ours = token(grant_type="client_credentials")
member = get(ours, f"/v1/members/{sys.argv[1]}")["id"]
theirs = token(
    grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token_type="urn:ietf:params:oauth:token-type:jwt",  # noqa: S106  a type's name
    subject_token=subject_token(member),
)
balances = get(theirs, f"/v1/members/{member}/balances")
statement = get(theirs, f"/v1/members/{member}/statement?limit=5")
receipt = get(theirs, f"/v1/members/{member}/receipts/{statement['data'][0]['transaction']}")
json.dump({"balances": balances, "statement": statement, "receipt": receipt}, sys.stdout, indent=4)
