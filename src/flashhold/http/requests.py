"""What every verb needs of a request, in the order of the contract: who asks, how large, what type, which key."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from flashhold.domain.idempotency import KEY_PATTERN
from flashhold.domain.limits import is_text
from flashhold.http.auth import KeyTable
from flashhold.http.problems import Problem, invalid

Receive = Callable[[], Awaitable[Any]]
RawHeaders = list[tuple[bytes, bytes]]

_JSON = b"application/json"


class ClientGone(Exception):
    """The connection ended before the request did; there is nobody to answer."""


class Received(NamedTuple):
    """A request that may be carried out as soon as its body makes sense."""

    key: str | None
    body: bytes


async def receive_request(
    headers: RawHeaders, receive: Receive, keys: KeyTable, *, needs: int, key_required: bool, body_bytes_max: int
) -> Received:
    """Check all but the meaning of the body. Raises `Problem`, in the contract's order, or `ClientGone`."""
    authorization = content_type = encoding = length = key = None
    repeated = False
    for name, value in headers:
        if name == b"idempotency-key":
            repeated = key is not None
            key = value
        elif name == b"authorization":
            authorization = value if authorization is None else b""
        elif name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
    await keys.check(authorization, needs)
    if length is not None and length.isdigit() and int(length[:20]) > body_bytes_max:
        raise Problem("body-too-large", f"The body may have at most {body_bytes_max} bytes.")
    body = await receive_body(receive, body_bytes_max)
    if body and ((content_type != _JSON and not _is_json(content_type)) or encoding is not None):
        raise Problem("unsupported-media-type")
    if key is None:
        if key_required:
            raise Problem("idempotency-key-missing")
        return Received(None, body)
    text = key.decode("latin-1")
    if repeated or KEY_PATTERN.fullmatch(text) is None:
        raise Problem("idempotency-key-invalid")
    return Received(text, body)


async def receive_body(receive: Receive, bytes_max: int) -> bytes:
    """The whole body, which is never held beyond `bytes_max`, however it is sent."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    while True:
        if len(body) > bytes_max:
            raise Problem("body-too-large", f"The body may have at most {bytes_max} bytes.")
        if not message.get("more_body", False):
            return body
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")


def _is_json(content_type: bytes | None) -> bool:
    """`application/json` with any parameters but another charset; a body that names no type is taken at its word."""
    if content_type is None:
        return True
    media, *parameters = content_type.decode("latin-1").lower().split(";")
    if media.strip() != _JSON.decode():
        return False
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in ("utf-8", "utf8", "us-ascii"):
            return False
    return True


def sku_of(raw_path: bytes, prefix: bytes) -> str:
    """The SKU that a path names, percent-decoded once and byte-exact, so that `%2F` is part of a SKU.

    Raises `Problem` invalid-request where it is not 1-128 characters of valid UTF-8 without control characters.
    """
    try:
        sku = unquote_to_bytes(raw_path.split(b"?", 1)[0][len(prefix) :]).decode()
    except UnicodeDecodeError:
        raise invalid("sku", "must be valid UTF-8, percent-encoded") from None
    if not is_text(sku):
        raise invalid("sku", "must be 1 to 128 characters without control characters")
    return sku
