"""Say in one sentence why a server could not be reached and what to check, from the chain of causes that Icechunk's clients report.

In: a client's message, such as "dispatch failure |-> dns error".  Out: what was found and what to do. The message itself may quote a whole
page from the server and is not shown; codes that servers are known to send are.
"""

import os
import re
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from schemas.errors import StoreUnreachableError
from store.backend.address import Address

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile that AWS_PROFILE names",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or log in with: gcloud auth application-default login",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN",
    "hf": "HF_TOKEN, or log in with: hf auth login",
}
CONNECT_S = 5.0
WHERE = {"s3": "the bucket, the region and endpoint_url", "az": "the container and the account"}


class Cause(NamedTuple):
    """Words of a message (a regular expression, whose group is a server's code), what was found, and what to check."""

    words: str
    fault: str
    check: str


# The first that fits decides, so what is more precise comes first. {keys} and {where} depend on the kind of address.
CAUSES = (
    Cause(r"read-only file system", "the folder cannot be written", "check its owner and permissions"),
    Cause(
        r"loading credentials|no credentials|CredentialsNotLoaded|IMDS|computeMetadata|performing token request",
        "no credentials were found",
        "set {keys}{public}",
    ),
    Cause(
        r"(SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|InvalidToken|AuthenticationFailed|invalid_grant|Unauthori[sz]ed|\b401\b)",
        "the server does not accept the credentials",
        "check {keys}",
    ),
    Cause(r"(NoSuchBucket|ContainerNotFound)|bucket does not exist", "the server has no such bucket", "check {where}"),
    Cause(
        r"(PermanentRedirect|AuthorizationHeaderMalformed|IncorrectEndpoint)",
        "the bucket is in another region",
        "add region=... to the address",
    ),
    Cause(
        r"(AccessDenied|AuthorizationPermissionMismatch|Forbidden|\b403\b)|access denied|permission denied",
        "the server denies it with these credentials",
        "see docs/permissions.md for what a reader and a writer need",
    ),
    Cause(r"dns error|lookup address|name resolution", "its host name is not known", "check the address, and the network"),
    Cause(r"connection refused", "nothing listens at that address", "check host and port in the address, and that the server runs"),
    Cause(
        r"certificate|tls|ssl|InvalidContentType",
        "no secure connection could be made",
        "check http or https in the address, and the server's certificate",
    ),
    Cause(r"timed? ?out|deadline", "it did not answer in time", "check {where}, the network and its proxies"),
    Cause(r"(SlowDown|TooManyRequests|\b429\b|\b503\b)|throttl", "the server asks to be slower", "try again later, with fewer writers"),
    Cause(r"", "it did not answer as an object store does", "check {where}, the network and its proxies"),
)


def require_server(address: Address) -> None:
    """Raise StoreUnreachableError at once if nothing listens at an address's endpoint; the clients would try again for a minute.

    Behind a proxy nothing is asked, since the proxy knows hosts that this machine does not.
    """
    endpoint = urlsplit(address.options.get("endpoint_url", ""))
    if not endpoint.hostname or any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in os.environ):
        return
    try:
        socket.create_connection((endpoint.hostname, endpoint.port or (443 if endpoint.scheme == "https" else 80)), CONNECT_S).close()
    except (ConnectionRefusedError, socket.gaierror) as error:
        words = "dns error" if isinstance(error, socket.gaierror) else "connection refused"
        raise StoreUnreachableError(f"store {address} cannot be reached: {why_unreachable(address, words)}") from error
    except OSError:  # no answer yet: the client tries longer
        return


def why_unreachable(address: Address, message: str) -> str:
    """Return what was found and what to check, as the end of a sentence."""
    cause, match = next((cause, match) for cause in CAUSES if (match := re.search(cause.words, message, re.IGNORECASE)))
    code = f" ({match[1]})" if match.re.groups and match[1] else ""
    public = "; a public bucket needs ?anonymous=true in its address" if address.scheme == "s3" else ""
    named = {"keys": KEYS.get(address.scheme, "your credentials"), "where": WHERE.get(address.scheme, "the address"), "public": public}
    return f"{cause.fault}{code}; {cause.check.format(**named)}"
