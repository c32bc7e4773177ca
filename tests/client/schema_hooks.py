"""What a schema cannot say of the query API's parameters together, so that Schemathesis knows a valid question when it makes one: a span
ends after it begins, it has not too many windows, and only an answer can tell a cursor. Other questions are left as they are: those must
be refused."""

import re

import schemathesis
from schemathesis import GenerationMode

DAY_MS = 86_400_000
NUMBER = re.compile(r"[0-9]+")


def in_ms(value):
    """A whole number as the API reads it; None: RFC 3339, or nothing."""
    if not NUMBER.fullmatch(str(value)):
        return None
    number = int(str(value))
    return number * 1000 if number < 10**11 else number


@schemathesis.hook
def before_call(context, case, kwargs):
    meta, query = case.meta, case.query
    if not query or meta is None or meta.generation.mode is not GenerationMode.POSITIVE:
        return
    query.pop("cursor", None)
    if "from" in query or "to" in query:
        start_ms = in_ms(query.get("from", 0))
        start_ms = 1_712_908_800_000 if start_ms is None else min(start_ms, 253_000_000_000_000)
        query["from"], query["to"] = start_ms if start_ms >= 10**11 else start_ms // 1000, start_ms + DAY_MS
        if query["to"] < 10**11:
            query["to"] = query["to"] // 1000
