"""The deployment's key that signs seals, and whatever else others check against its published half."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.settings import Settings
from ledger.seals import SealingKey


def sealing_key(settings: Settings) -> SealingKey:
    """The key that signs seals. Raises `UnsafeSettings` when it is absent or malformed."""
    return SealingKey(Ed25519PrivateKey.from_private_bytes(settings.seal_key_bytes))
