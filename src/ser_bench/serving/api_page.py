"""A page that documents the server, made of its OpenAPI description; it loads nothing from other hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b}"
    "code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f3f3;border-radius:4px}code{padding:.1em .3em}"
    "pre{padding:.8rem;overflow-x:auto}table{border-collapse:collapse;width:100%}"
    "td,th{border-bottom:1px solid #ccc;text-align:left;padding:.3rem .6rem;vertical-align:top}"
    "h2{margin-top:2.2rem;border-bottom:2px solid #1b1b1b}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}code,pre{background:#2a2a2a}"
    "td,th{border-color:#444}h2{border-color:#eee}}"
)


def reference_html(description: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        description: the document of OpenAPI 3.
    """
    info = description["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        *_paragraphs(info.get("description", "")),
        "<p>Machine-readable: <a href=openapi.json>openapi.json</a></p>",
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _operation(path, method, operation)
    return "\n".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
    yield f"<p><strong>{escape(operation.get('summary', ''))}</strong></p>"
    yield from _paragraphs(operation.get("description", ""))
    bodies = operation.get("requestBody", {}).get("content", {})
    if bodies:
        yield "<h3>Body</h3>"
        for media, content in bodies.items():
            yield f"<p><code>{escape(media)}</code></p>"
            yield from _schema(content.get("schema", {}))
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<h3>Parameters</h3><table>"
        for each in parameters:
            yield f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each.get('description', ''))}"
        yield "</table>"
    yield "<h3>Answers</h3><table>"
    for status, answer in operation.get("responses", {}).items():
        yield f"<tr><td><code>{escape(str(status))}</code><td>{escape(answer.get('description', ''))}"
        for content in answer.get("content", {}).values():
            yield from _schema(content.get("schema", {}))
    yield "</table>"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of the properties and the example of a schema."""
    properties = schema.get("properties", {})
    if properties:
        yield "<table>"
        for name, value in properties.items():
            kind = value.get("type", "")
            kind = " or ".join(kind) if isinstance(kind, list) else str(kind)
            yield f"<tr><td><code>{escape(name)}</code><td>{escape(kind)}<td>{escape(value.get('description', ''))}"
        yield "</table>"
    if "example" in schema:
        yield f"<pre>{escape(json.dumps(schema['example'], indent=2))}</pre>"


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield f"<p>{escape(' '.join(paragraph.split()))}</p>"
