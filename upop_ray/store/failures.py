"""What went wrong with a file of the store: whether that passes by itself, and how to say it in one line."""

import errno
from collections.abc import Iterator
from typing import Any

from aiohttp import ClientError as TransferError
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from upop_ray.store.names import without_credentials

#: answers of an object store that mean "later": besides these, every status from 500 on, but 501 (not implemented)
_PASSING_STATUS = {408, 409, 425, 429}
#: the same by name; these come with status 400 or 404
_PASSING_CODES = {"RequestTimeout", "NoSuchUpload", "Throttling", "ThrottlingException", "RequestLimitExceeded"}
#: a network that does not answer, and an NFS server that forgot a file
_PASSING_ERRNO = {errno.ETIMEDOUT, errno.ESTALE, errno.EAGAIN, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE}
_PASSING_ERRORS = (
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    # a role's short-lived credentials could not be renewed just now
    aws.CredentialRetrievalError,
    aws.TokenRetrievalError,
    # a proxy's page instead of an answer
    ResponseParserError,
    TransferError,
    TimeoutError,
    ConnectionError,
)
#: what reading and writing can fail with
FAILURES = (OSError, ValueError, aws.BotoCoreError, ResponseParserError, TransferError)
_SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
_CORRECT_CREDENTIALS = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_WRONG_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}


def passes(error: BaseException) -> bool:
    """Whether the same might work later: an overload, an outage, a broken connection.

    Not retried: missing files and buckets, wrong or missing credentials, denied access, a full disk, a wrong request.
    """
    for each in _chain(error):
        status, code = answer(each)
        if status:
            return (status >= 500 and status != 501) or status in _PASSING_STATUS or code in _PASSING_CODES
        if isinstance(each, aws.SSLError):
            return False
        if isinstance(each, _PASSING_ERRORS) or getattr(each, "errno", None) in _PASSING_ERRNO:
            return True
    return False


def answer(error: BaseException) -> tuple[int, str]:
    """(HTTP status, code) with which an S3 server refused; (0, "") when it did not answer."""
    response: Any = getattr(error, "response", None)
    if not isinstance(response, dict):
        return 0, ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(response.get("Error", {}).get("Code", ""))


def exists_already(error: BaseException) -> bool:
    """Whether a file was to be made that is there already."""
    return any(isinstance(each, FileExistsError) or answer(each)[0] == 412 for each in _chain(error))


def no_bucket(error: BaseException) -> bool:
    """Whether the bucket itself is missing, not a file in it."""
    return any(answer(each)[1] == "NoSuchBucket" for each in _chain(error))


def explained(error: BaseException) -> str:
    """Reason and cure in one line, without secrets."""
    return without_credentials(" ".join(_explained(error).split()))


def _explained(error: BaseException) -> str:
    status, code = next((found for found in map(answer, _chain(error)) if found[0]), (0, ""))
    if code == "NoSuchBucket":
        return "there is no such bucket; create it or correct its name"
    if code in _WRONG_CREDENTIALS:
        return f"the credentials are wrong ({code}); {_CORRECT_CREDENTIALS}"
    if status == 403:
        return f"access is denied ({code}); give these credentials the right to read, write, list and delete there"
    if status:
        return f"the server answers {status} ({code}: {error}); look at its state"
    return _explained_here(error)


def _explained_here(error: BaseException) -> str:
    """Of what failed without an answer from a server."""
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return f"there are no credentials; {_SET_CREDENTIALS}"
    if isinstance(error, aws.ProfileNotFound):
        return f"{error}; correct AWS_PROFILE"
    if isinstance(error, aws.SSLError):
        return f"no secure connection: {error}; correct AWS_ENDPOINT_URL or AWS_CA_BUNDLE"
    if passes(error):
        return f"no answer ({error or type(error).__name__}); check the network, and AWS_ENDPOINT_URL if it is set"
    if isinstance(error, ValueError):
        return f"{error}; correct AWS_ENDPOINT_URL"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"{error}; free space there"
    return f"{error or type(error).__name__}; check rights and space"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it says it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
