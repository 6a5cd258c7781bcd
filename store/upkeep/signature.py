"""Sign the contents of a store and check signatures: Ed25519 over a manifest of every stored byte.

In: a store's address and a PEM key (`openssl genpkey -algorithm ed25519`).  Out: a signature in the store, or a list of problems.
The manifest lists the SHA-256 of every key under items/ and runs/: arrays, attributes (origin, command, post-conditions) and question
texts. The signature is stored outside of them, so signing does not change what is signed. Signatures by earlier versions covered only the
digests of runs and item sets; they are still checked, and reported as partial.
"""

from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from schemas.digest import canonical_json
from schemas.errors import UsageError
from schemas.layout import ITEMS, RUNS
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.root import SIGNATURE, read_root, root_document
from store.reading.catalog import read_records
from store.repository.repository import open_repository

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

WHOLE = "2:"  # prefix of a signature over every stored byte; signatures by earlier versions have no prefix


def manifest(keys: SessionKeys) -> bytes:
    """Return the manifest of a snapshot: canonical JSON of the SHA-256 of every key under items/ and runs/, sorted by key."""
    hashes = {
        key: sha256(value).hexdigest()
        for kind in (ITEMS, RUNS)
        for name in keys.children(kind)
        for key, value in keys.nodes_under(f"{kind}/{name}")
    }
    return canonical_json({"keys": hashes}).encode()


def digests_manifest(keys: SessionKeys) -> bytes:
    """Return the manifest that earlier versions signed: every run's name and digest, and every item set's digest."""
    runs = sorted((name, record.digest) for name, record in read_records(keys).items())
    return canonical_json({"items": keys.children(ITEMS), "runs": runs}).encode()


def sign_store(url: str, key_file: Path) -> str:
    """Commit a signature over the newest snapshot's manifest and return the new snapshot's id."""
    key = _private_key(key_file)
    repository = open_repository(url)
    session = repository.writable()
    keys = repository.keys_of(session)
    signature = WHOLE + key.sign(manifest(keys)).hex()
    keys.set_many([("zarr.json", root_document({**read_root(keys), SIGNATURE: signature}))])
    with repository.lock(), readable(url):
        return str(session.commit("sign the manifest"))


class Signature(NamedTuple):
    """Problems that make a signature invalid, and notes about a valid one."""

    problems: list[str]
    notes: list[str]


def check_signature(keys: SessionKeys, key_file: Path) -> Signature:
    """Check a snapshot's signature with a public key; the result has no problems if the signature is valid."""
    from cryptography.exceptions import InvalidSignature

    key = _public_key(key_file)
    signature = read_root(keys).get(SIGNATURE)
    if not isinstance(signature, str):
        return Signature([f"store {keys.where} is not signed"], [])
    whole = signature.startswith(WHOLE)
    try:
        key.verify(bytes.fromhex(signature.removeprefix(WHOLE)), manifest(keys) if whole else digests_manifest(keys))
    except (InvalidSignature, ValueError):
        invalid = f"its signature is not valid under {key_file.name}: the store was changed since, or the signature is forged"
        return Signature([f"store {keys.where}: {invalid}"], [])
    partial = "its signature is partial: it covers logits, keys and items, but no origin, command, post-condition or question text"
    return Signature([], [] if whole else [f"store {keys.where}: {partial}; sign it anew"])


def _private_key(path: Path) -> "Ed25519PrivateKey":
    serialization = _library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path} is not an unencrypted PEM private key; make one with: openssl genpkey -algorithm ed25519") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    return key


def _public_key(path: Path) -> "Ed25519PublicKey":
    serialization = _library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not a PEM public key; take it from the private one with: openssl pkey -pubout") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path} is not an Ed25519 public key")
    return key


def _library() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise UsageError("signatures need the package cryptography: pip install 'hedgemark[sign]'") from error
    return serialization
