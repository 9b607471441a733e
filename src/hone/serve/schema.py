"""The server's own OpenAPI file, made of the models that requests are checked with.

>>> sorted(openapi(["tuned"])["paths"])[:2]
['/health', '/metrics']
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from hone.runs import versions
from hone.serve.fields import IGNORED, REFUSED, ChatBody, CompletionBody
from hone.serve.refusal import CODES, JsonObject

TEXT: JsonObject = {"type": "string"}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
COUNT = {"type": "integer", "minimum": 0}
USAGE = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), COUNT),
}
FINISH = {"enum": ["stop", "length"]}
MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "fingerprint", "weights_sha256", "template_sha256"],
    "properties": {"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT},
}


def openapi(names: list[str]) -> JsonObject:
    """names: what `model` may be."""
    _, found = models_json_schema(
        [(ChatBody, "validation"), (CompletionBody, "validation")], ref_template="#/components/schemas/{model}"
    )
    schemas = found["$defs"]
    for name in ("ChatBody", "CompletionBody"):
        fields = schemas[name]["properties"]
        fields["model"] = {"enum": names}
        fields |= {key: {"description": f"ignored: {why}"} for key, why in IGNORED.items()}
        fields |= {
            key: {"enum": [None, *nothing], "description": f"refused otherwise: {why}"}
            for key, (why, nothing) in REFUSED.items()
        }
    message = _object(role={"const": "assistant"}, content=TEXT, refusal={"type": "null"})
    end = {"index": COUNT, "finish_reason": FINISH, "logprobs": {"type": ["object", "null"]}}
    schemas |= {"Error": ERROR, "Usage": USAGE, "Model": MODEL}
    schemas["ChatCompletion"] = _response("chat.completion", _object(message=message, **end))
    schemas["Completion"] = _response("text_completion", _object(text=TEXT, **end))
    return {
        "openapi": "3.1.0",
        "info": {"title": "hone serve", "version": versions()["hone-lm"] or "unknown", "license": {"name": "MIT"}},
        "paths": {
            "/v1/chat/completions": {"post": _post("ChatBody", "ChatCompletion", "Answer a conversation")},
            "/v1/completions": {"post": _post("CompletionBody", "Completion", "Continue a text")},
            "/v1/models": {
                "get": _get("The models, with what proves which they are", _object(object=TEXT, data=_list("Model")))
            },
            "/v1/models/{model}": {"get": _get("One of them", _ref("Model"), 404) | {"parameters": [_path(names)]}},
            "/health": {"get": _get("Is it there", _object(status={"const": "ok"}))},
            "/metrics": {"get": _get("Figures for Prometheus", TEXT, kind="text/plain")},
            "/openapi.json": {"get": _get("This file", {"type": "object"})},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _object(**properties: Any) -> JsonObject:
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> JsonObject:
    return {"type": "array", "items": _ref(name)}


def _path(names: list[str]) -> JsonObject:
    return {"name": "model", "in": "path", "required": True, "schema": {"enum": names}}


def _response(kind: str, choice: JsonObject) -> JsonObject:
    head = {"id": TEXT, "object": {"const": kind}, "created": COUNT, "model": TEXT, "system_fingerprint": TEXT}
    return _object(**head, choices={"type": "array", "items": choice}, usage=_ref("Usage"))


def _errors(*codes: int) -> JsonObject:
    content = {"application/json": {"schema": _ref("Error")}}
    return {str(code): {"description": CODES[code], "content": content} for code in codes}


def _get(summary: str, schema: Any, *errors: int, kind: str = "application/json") -> JsonObject:
    done = {"200": {"description": summary, "content": {kind: {"schema": schema}}}}
    return {"summary": summary, "responses": {**done, **_errors(401, 403, *errors)}}


def _post(body: str, answer: str, summary: str) -> JsonObject:
    headers = {
        "x-hone-ignored": {"description": "fields that changed nothing", "schema": TEXT},
        "x-hone-seed": {"description": "the seed with which the answer comes again", "schema": TEXT},
    }
    content = {"application/json": {"schema": _ref(answer)}, "text/event-stream": {"schema": TEXT}}
    responses = {"200": {"description": summary, "headers": headers, "content": content}}
    errors = _errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
    request = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return {"summary": summary, "requestBody": request, "responses": {**responses, **errors}}
