"""What a client is told when it gets no answer: OpenAI's form of an error, all four fields, and a status.

>>> Refusal(404, "no model 'x'", param="model", code="model_not_found").body()["error"]["type"]
'invalid_request_error'
"""

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]  # what goes over the wire, in the form that OpenAI gave it
TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "server_error",
}
CODES = {  # where no other is given
    400: "invalid_value",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "shutting_down",
    504: "timeout",
}


class Refusal(Exception):
    """A request that is not answered: why, by which of its fields, and the HTTP status.

    headers: more of them. `x-should-retry: false` keeps OpenAI's own clients from asking the same again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code = code or CODES.get(status, "error")
        self.headers = dict(headers or {})

    def body(self) -> JsonObject:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def internal(error: BaseException) -> Refusal:
    """A fault of ours: its kind is named, its text may hold paths and is not."""
    return Refusal(500, f"the server failed at this request ({type(error).__name__}); its log says more")
