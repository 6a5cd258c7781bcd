"""How Icechunk reaches each kind of address. Each kind has its own function and one line in `BACKENDS`.

Credentials come from the environment or the provider's usual chain, never from the address.
"""

import os
from collections.abc import Callable, Mapping

import icechunk

from schemas.errors import UsageError
from store.backend.address import Address
from store.backend.unreachable import require_server


def storage(address: Address) -> icechunk.Storage:
    """Return Icechunk's storage for an address. Raises StoreUnreachableError if nothing listens at its endpoint."""
    require_server(address)
    return BACKENDS[address.scheme](address)


def _local(address: Address) -> icechunk.Storage:
    return icechunk.local_filesystem_storage(str(address.path))


def _s3(address: Address) -> icechunk.Storage:
    endpoint = address.options.get("endpoint_url")
    anonymous = address.options.get("anonymous") == "true"
    return icechunk.s3_storage(
        bucket=address.bucket,
        prefix=address.prefix or None,
        region=address.options.get("region") or os.environ.get("AWS_REGION") or ("us-east-1" if endpoint else None),
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=address.options.get("force_path_style", "true" if endpoint else "false") == "true",
        anonymous=anonymous or None,
        from_env=None if anonymous else True,
    )


def _gcs(address: Address) -> icechunk.Storage:
    return icechunk.gcs_storage(bucket=address.bucket, prefix=address.prefix or None, from_env=True)


def _azure(address: Address) -> icechunk.Storage:
    account = address.options.get("account") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise UsageError(f"store address {address} names no storage account; add ?account=NAME or set AZURE_STORAGE_ACCOUNT_NAME")
    return icechunk.azure_storage(account=account, container=address.bucket, prefix=address.prefix, from_env=True)


def _http(address: Address) -> icechunk.Storage:
    _need_icechunk_2("http_storage", address)
    return icechunk.http_storage(address.text)  # type: ignore[attr-defined,no-any-return,unused-ignore]  # icechunk 2 only


def _hugging_face(address: Address) -> icechunk.Storage:
    _need_icechunk_2("hf_storage", address)
    bucket, _, prefix = address.prefix.partition("/")
    return icechunk.hf_storage(  # type: ignore[attr-defined,no-any-return,unused-ignore]  # icechunk 2 only
        namespace=address.bucket, bucket=bucket, prefix=prefix or None, from_env=True
    )


def _need_icechunk_2(function: str, address: Address) -> None:
    if not hasattr(icechunk, function):
        raise UsageError(f"store address {address} needs icechunk 2 (Python 3.12 or newer); here is icechunk {icechunk.__version__}")


BACKENDS: Mapping[str, Callable[[Address], icechunk.Storage]] = {
    "file": _local,
    "s3": _s3,
    "gs": _gcs,
    "az": _azure,
    "http": _http,
    "https": _http,
    "hf": _hugging_face,
}
