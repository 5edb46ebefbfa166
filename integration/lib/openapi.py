"""Holds a running daemon to its own description: openapi.py BASE TOKEN

The description must be valid OpenAPI 3.1, and what every GET without values in its path answers must be as
it says, errors too. Prints one line per answer. Needs openapi-spec-validator (and jsonschema with it)."""

import copy
import json
import sys
import urllib.error
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

base, token = sys.argv[1:]


def ask(path, token):
    request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers["content-type"], json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers["content-type"], json.load(answer)


def close(schema):
    """Members that are not described are faults here; clients must bear them."""
    if isinstance(schema, dict):
        for value in schema.values():
            close(value)
        if schema.get("type") == "object" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    elif isinstance(schema, list):
        for value in schema:
            close(value)


status, kind, description = ask("/openapi.json", token)
assert status == 200 and kind == "application/json", (status, kind)
validate(description, cls=OpenAPIV31SpecValidator)
print("valid OpenAPI", description["openapi"], len(description["paths"]), "paths")

strict = copy.deepcopy(description)
close(strict)


def check(path, token, query=""):
    status, kind, value = ask(path + query, token)
    response = strict["paths"][path]["get"]["responses"][str(status)]
    if "$ref" in response:
        response = strict["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    schema = {**response["content"][kind]["schema"], "components": strict["components"]}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    print("as described:", path + query, status)
    return status


for path, item in description["paths"].items():
    if "get" not in item or "{" in path or path == "/openapi.json":
        continue
    required = [p["name"] for p in item["get"].get("parameters", []) if p.get("required")]
    query = "?to=s39.example" if "to" in required else ""
    assert check(path, token, query) == 200, path
    # Ten of these, and the others are 429; both are described.
    assert check(path, "wrong-token-0123456789") in (401, 429), path
    if "400" in item["get"]["responses"]:
        assert check(path, token, "?no-such-thing=1") == 400, path
