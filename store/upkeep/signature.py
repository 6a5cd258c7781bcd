"""Sign the contents of a store and check signatures: Ed25519 over a manifest of every stored byte.

In: a store's address and a PEM key (`openssl genpkey -algorithm ed25519`).  Out: a signature in the store, or a list of problems.
The manifest lists the SHA-256 of every key under items/ and runs/: arrays, attributes (origin, command, post-conditions) and question
texts. With it are signed the history and what each tag names (`signed_names.py`). The signature is stored outside of all that, so signing
does not change what is signed. Signatures by earlier versions covered less; they are still checked, and reported as partial.
"""

from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.digest import canonical_json
from schemas.errors import UsageError
from schemas.layout import ITEMS, RUNS
from store.backend.failures import readable
from store.backend.session_keys import SessionKeys
from store.format.root import SIGNATURE, SIGNED, read_root, root_document
from store.reading.catalog import read_records
from store.repository.repository import Repository, open_repository
from store.upkeep.signed_names import SIGN_MESSAGE, differences, record
from store.upkeep.tags import check_new_tag

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Prefix of a signature -> what it leaves out; the newest leaves out nothing that a command shows.
FORMS = {
    "3:": "",
    "2:": "it covers every run and item set, but no tag and no commit message",
    "": "it covers logits, keys and items, but no origin, command, post-condition or question text",
}
NEWEST = "3:"


def manifest(keys: SessionKeys, names: dict[str, Any] | None = None) -> bytes:
    """Return the manifest of a snapshot: canonical JSON of the SHA-256 of every key under items/ and runs/, sorted by key.

    names : what else is signed, see `signed_names.record`; earlier versions signed nothing else.
    """
    hashes = {
        key: sha256(value).hexdigest()
        for kind in (ITEMS, RUNS)
        for name in keys.children(kind)
        for key, value in keys.nodes_under(f"{kind}/{name}")
    }
    return canonical_json({"keys": hashes} if names is None else {"keys": hashes, SIGNED: names}).encode()


def digests_manifest(keys: SessionKeys) -> bytes:
    """Return the manifest that earlier versions signed: every run's name and digest, and every item set's digest."""
    runs = sorted((name, record.digest) for name, record in read_records(keys).items())
    return canonical_json({"items": keys.children(ITEMS), "runs": runs}).encode()


def sign_store(url: str, key_file: Path, tag: str = "") -> str:
    """Commit a signature over the newest snapshot, its history and all tags, and return the new snapshot's id.

    tag : is about to be given to that snapshot, so it is signed as well. Raises UsageError if it exists already.
    """
    key = _private_key(key_file)
    repository = open_repository(url)
    session = repository.writable()
    keys = repository.keys_of(session)
    if tag:
        check_new_tag(repository, tag)
    names = record(repository, str(session.snapshot_id), tag)
    signature = NEWEST + key.sign(manifest(keys, names)).hex()
    keys.set_many([("zarr.json", root_document({**read_root(keys), SIGNATURE: signature, SIGNED: names}))])
    with repository.lock(), readable(url):
        return str(session.commit(SIGN_MESSAGE))


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
    form = next(prefix for prefix in FORMS if signature.startswith(prefix))
    try:
        key.verify(bytes.fromhex(signature.removeprefix(form)), _signed_bytes(keys, form))
    except (InvalidSignature, ValueError):
        invalid = f"its signature is not valid under {key_file.name}: the store was changed since, or the signature is forged"
        return Signature([f"store {keys.where}: {invalid}"], [])
    return Signature([], [f"store {keys.where}: its signature is partial: {FORMS[form]}; sign it anew"] if FORMS[form] else [])


def check_signed_names(repository: Repository, at: str | None) -> Signature:
    """Hold history and tags of a snapshot with a valid signature against what was signed; `at` is a tag, a snapshot id or None."""
    snapshot, keys = repository.keys(at)
    root = read_root(keys)
    if not root[SIGNATURE].startswith(NEWEST):
        return Signature([], [])
    return Signature(*differences(repository, snapshot, root[SIGNED], at))


def _signed_bytes(keys: SessionKeys, form: str) -> bytes:
    if form == NEWEST:
        return manifest(keys, read_root(keys).get(SIGNED))
    return manifest(keys) if form else digests_manifest(keys)


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
