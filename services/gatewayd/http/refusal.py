"""The answer to what is no request: no door can shape it, so it is that of /v2."""

from gatewayd.errors import error_body, error_headers, http_status
from gatewayd.http.request_head import HeadTooLarge
from gatewayd.http.stream import Headers
from gatewayd.json_codec import encode_json
from llorch.errors import LlorchError
from llorch.identifiers import new_id

_HEAD_TOO_LARGE = 431


def refusal(error: LlorchError, status: int | None) -> tuple[int, Headers, bytes]:
    """Status, headers and body. A `status` of the protocol's own goes before that of the error."""
    correlation_id = new_id("cor")
    body = encode_json(error_body(error, correlation_id))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-correlation-id", correlation_id.encode()),
        *error_headers(error),
    ]
    if isinstance(error, HeadTooLarge):
        status = _HEAD_TOO_LARGE
    return status or http_status(error), headers, body
