"""Prints what httplint calls bad in one answer: `lint.py FILE`, a JSON object with method, status,
headers (pairs) and body (bytes as numbers). Prints nothing where there is nothing."""
import json
import pathlib
import sys

from httplint import HttpResponseLinter
from httplint.note import levels

message = json.loads(pathlib.Path(sys.argv[1]).read_text())
linter = HttpResponseLinter()
linter.process_response_topline(b"HTTP/1.1", str(message["status"]).encode(), b"Reason")
linter.process_headers([(name.encode(), value.encode()) for name, value in message["headers"]])
body = bytes(message["body"])
if message["method"] != "HEAD" and message["status"] != 304:
    linter.feed_content(body)
    linter.finish_content(True)
for note in linter.notes:
    if note.level == levels.BAD:
        print(f"{note.subject}: {note.summary}")
