"""Sign what a store holds, and check a signature: Ed25519 over the sorted manifest of run and item-set digests.

In: a store's address and a PEM key (`openssl genpkey -algorithm ed25519`).  Out: a signature in the store, or a list of problems.
The manifest does not name the signature, so signing does not change what is signed.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from schemas.digest import canonical_json
from schemas.errors import UsageError
from schemas.layout import ITEMS, group_document, root_attributes
from store.backend.failures import readable
from store.format.documents import dump_document, group_attributes
from store.format.keys import Keys
from store.reading.catalog import read_records
from store.repository.repository import open_repository

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "signature"


def manifest(keys: Keys) -> bytes:
    """Return the sorted manifest of a snapshot: canonical JSON of every run's name and digest and every item set's digest."""
    runs = sorted((name, record.digest) for name, record in read_records(keys).items())
    return canonical_json({"items": keys.children(ITEMS), "runs": runs}).encode()


def sign_store(url: str, key_file: Path) -> str:
    """Commit a signature over the newest snapshot's manifest and return the new snapshot's id."""
    key = _private_key(key_file)
    repository = open_repository(url)
    session = repository.writable()
    keys = repository.keys_of(session)
    signature = key.sign(manifest(keys)).hex()
    keys.set_many([("zarr.json", dump_document(group_document({**root_attributes(), SIGNATURE: signature})))])
    with repository.lock(), readable(url):
        return str(session.commit("sign the manifest"))


def signature_problems(keys: Keys, key_file: Path) -> list[str]:
    """Return what is wrong with a snapshot's signature under a public key, nothing where it holds."""
    from cryptography.exceptions import InvalidSignature

    key = _public_key(key_file)
    signature = group_attributes(keys.get_many(["zarr.json"])[0], f"store {keys.where}", seal=False).get(SIGNATURE)
    if not isinstance(signature, str):
        return [f"store {keys.where} is not signed"]
    try:
        key.verify(bytes.fromhex(signature), manifest(keys))
    except (InvalidSignature, ValueError):
        return [f"store {keys.where}: its signature is not that of {key_file.name} over these runs; runs were added since, or it is forged"]
    return []


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
