"""What may stand in the address of a store and in the name of a file in it; everything else is refused."""

import re

from upop_ray.errors import StoreError

#: the kinds of object stores: how their addresses begin, and the package that reaches them
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
#: no character that a file system or library gives a meaning: * ? [ { are patterns, ? begins a query, % an escape
_PLAIN = re.compile(r"[\w .,+=@~:()-]+")
_CREDENTIALS = re.compile(r"//[^/\s\"']*@")


def checked_name(name: str) -> str:
    """The name of a file or folder in the store, if it can lead nowhere else.

    :raises StoreError: it could
    """
    parts = name.split("/")
    if not all(_PLAIN.fullmatch(part) and part not in (".", "..") for part in parts):
        raise StoreError(f"store: {name!r} leads out of the store; use a plain name")
    return name


def split_address(uri: str) -> tuple[str, str]:
    """(scheme, rest) of the address of a store; the scheme of a folder is empty.

    :raises StoreError: it is none, or holds credentials; these are not repeated
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "", uri
    if scheme == "file":
        return "", rest
    if "@" in rest:
        raise StoreError(
            f"store: the address ({scheme}://...) holds credentials, which would be written to files and logs; use "
            f"{scheme}://bucket/prefix, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
        )
    if scheme not in SCHEMES:
        kinds = ", ".join(f"{known}://bucket/prefix" for known in SCHEMES)
        raise StoreError(f"store: {uri} is no kind of store that is known; use a folder or {kinds}")
    root = rest.strip("/")
    try:
        checked_name(root)
    except StoreError as error:
        raise StoreError(
            f"store: {uri} names no bucket and prefix; use {scheme}://bucket/prefix of plain names"
        ) from error
    return scheme, root


def without_credentials(text: str) -> str:
    """Text in which addresses have lost what stands before an @."""
    return _CREDENTIALS.sub("//...@", text)
