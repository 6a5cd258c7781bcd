"""A server that cannot be reached: one sentence with the address and what to check, and at once where nothing listens."""

import icechunk
import pytest
from click.testing import CliRunner

from schemas.errors import StoreNotFoundError, StoreUnreachableError
from store import init_store, open_reader
from store.backend.address import parse_address
from store.backend.unreachable import why_unreachable
from store.cli.main import main

CHAIN = "x error getting object from object store {0}\n  |-> error getting object from object store {0}\n  |-> {0}\n"
S3, GS, AZ = "s3://bucket/p?endpoint_url=http://127.0.0.1:9", "gs://bucket/p", "az://box/p?account=a"
D, S, G = "dispatch failure", "service error", "object store error"
SEEN = [  # the ends of chains seen with Icechunk 1.1.21, from SeaweedFS and with no server at all
    (S3, D, "|-> dns error\n `-> failed to lookup address information", "its host name is not known; check the address"),
    (S3, D, "|-> tcp connect error\n `-> Connection refused (os error 111)", "nothing listens at that address; check host and port"),
    (S3, D, "|-> loading credentials\n `-> request forbidden: IMDS is disabled", "no credentials were found; set AWS_ACCESS_KEY_ID, "),
    (S3, D, "|-> an error occurred while loading credentials", "a public bucket needs ?anonymous=true in its address"),
    (
        S3,
        S,
        '|-> unhandled error (SignatureDoesNotMatch)\n `-> { "<html>" }',
        "accept the credentials (SignatureDoesNotMatch)",
    ),
    (S3, S, "|-> unhandled error (NoSuchBucket)", "the server has no such bucket (NoSuchBucket); check the bucket, the region"),
    (S3, S, "|-> unhandled error (AccessDenied)", "denies it with these credentials (AccessDenied); see docs/permissions.md"),
    (S3, S, "|-> unhandled error (PermanentRedirect)", "the bucket is in another region (PermanentRedirect); add region="),
    (S3, D, "|-> invalid peer certificate: UnknownIssuer", "no secure connection could be made; check http or https"),
    (S3, D, "|-> operation timed out", "it did not answer in time"),
    (S3, S, "|-> unhandled error (SlowDown)", "the server asks to be slower (SlowDown); try again later"),
    (S3, S, "|-> unhandled error", "it did not answer as an object store does; check the bucket"),
    (GS, G, "GET http://169.254.169.254/computeMetadata/v1 - 403 Forbidden", "found; set GOOGLE_APPLICATION_CREDENTIALS"),
    (AZ, G, "status code: 403 Forbidden: AuthenticationFailed", "accept the credentials (AuthenticationFailed); check AZURE_STORAGE"),
]


@pytest.mark.parametrize(("address", "first", "last", "said"), SEEN)
def test_the_cause_at_the_end_of_the_chain_is_what_is_said(address: str, first: str, last: str, said: str) -> None:
    """Not "dispatch failure", and never the server's own page."""
    text = why_unreachable(parse_address(address), CHAIN.format(first) + last)
    assert said in text and "dispatch" not in text and "html" not in text and "{" not in text


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "https://no-such-host.invalid"])
def test_where_nothing_listens_is_said_at_once(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients try again for a minute; whoever mistyped a port should not wait that long."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    address = f"s3://bucket/p?endpoint_url={endpoint}"
    for reach in (open_reader, init_store):
        with pytest.raises(StoreUnreachableError, match=r"^store s3://bucket.* cannot be reached: (nothing listens|its host name)"):
            reach(address)
    done = CliRunner().invoke(main, ["ls", "--store", address])
    assert done.exit_code == 5 and endpoint in done.stderr and len(done.stderr.splitlines()) == 1


def test_wrong_credentials_and_a_missing_bucket(seaweedfs: object, s3_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a real server answers."""
    address = seaweedfs.new_address()  # type: ignore[attr-defined]
    icechunk_2 = int(icechunk.__version__.split(".")[0]) >= 2  # which says of a bucket that is absent that it holds no store
    answer = "there is no store at" if icechunk_2 else r"no such bucket \(NoSuchBucket\)"
    with pytest.raises((StoreUnreachableError, StoreNotFoundError), match=answer):
        open_reader(address.replace("s3://", "s3://not-"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    with pytest.raises(StoreUnreachableError, match=r"does not accept the credentials \(InvalidAccessKeyId\); check AWS_ACCESS_KEY_ID"):
        open_reader(address)


@pytest.mark.parametrize("command", [["ls"], ["push"]])
def test_every_help_says_which_addresses_there_are(command: list[str]) -> None:
    """The endpoint of a server of one's own is part of the address, which nobody guesses."""
    text = CliRunner().invoke(main, [*command, "--help"]).stdout
    assert "s3://BUCKET/PREFIX?endpoint_url=URL" in " ".join(text.split())
