"""An S3 server for the tests: moto, behind a wall that checks every signature.

It prints its port. Keys, and what goes wrong, are set by lines on its standard input:

    keys ACCESS SECRET      requests signed with these are let in, and no others
    fault NAME              none, stall, refuse, garbage, broken or half

It ends with its input.
"""

import hmac
import os
import sys
import threading
import time
import urllib.parse
from hashlib import sha256

import moto.server
from werkzeug.serving import WSGIRequestHandler, make_server

state = {"access": "AKTEST", "secret": "hunter2+/secret", "fault": "none", "count": 0}


def refusal(start, status, code, message):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body.encode()]


def signature(environ):
    """What the signature of a presigned request must be (AWS Signature Version 4)."""
    raw_path, _, raw_query = environ["RAW_URI"].partition("?")
    pairs = [pair.partition("=")[::2] for pair in raw_query.split("&") if pair]
    query = {urllib.parse.unquote(name): urllib.parse.unquote(value) for name, value in pairs}
    access, date, region, service, _ = query["X-Amz-Credential"].split("/")
    if access != state["access"]:
        return "InvalidAccessKeyId", None
    quote = lambda text: urllib.parse.quote(text, safe="-_.~")
    path = urllib.parse.quote(urllib.parse.unquote(raw_path), safe="/-_.~")
    canonical_query = "&".join(
        f"{quote(name)}={quote(value)}"
        for name, value in sorted(query.items())
        if name != "X-Amz-Signature"
    )
    names = query["X-Amz-SignedHeaders"].split(";")
    header = lambda name: environ["HTTP_" + name.upper().replace("-", "_")].strip()
    headers = "".join(f"{name}:{header(name)}\n" for name in names)
    request = "\n".join(
        [environ["REQUEST_METHOD"], path, canonical_query, headers, ";".join(names), "UNSIGNED-PAYLOAD"]
    )
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            query["X-Amz-Date"],
            f"{date}/{region}/{service}/aws4_request",
            sha256(request.encode()).hexdigest(),
        ]
    )
    key = ("AWS4" + state["secret"]).encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), sha256)
    made = hmac.new(key, text.encode(), sha256).hexdigest()
    return query["X-Amz-Signature"], made


class Wall:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start):
        fault = state["fault"]
        state["count"] += 1
        while state["fault"] == "stall":
            time.sleep(0.05)
        if fault == "refuse":
            return refusal(start, "403 Forbidden", "AccessDenied", "not today")
        if fault == "broken":
            return refusal(start, "503 Service Unavailable", "SlowDown", "too much at once")
        if fault == "garbage":
            start("200 OK", [("Content-Type", "text/html")])
            return [b"<html><body>Welcome to the hotel network</body></html>"]
        if fault == "half":
            start("200 OK", [("Content-Length", "1000000"), ("Last-Modified", "x")])
            return [b"half"]
        if "X-Amz-Signature" not in environ.get("QUERY_STRING", ""):
            return refusal(start, "403 Forbidden", "AccessDenied", "not signed")
        given, made = signature(environ)
        if made is None:
            return refusal(start, "403 Forbidden", given, "no such key")
        if not hmac.compare_digest(given, made):
            return refusal(start, "403 Forbidden", "SignatureDoesNotMatch", "wrong signature")
        return self.inner(environ, start)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


def listen():
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "keys":
            state["access"], state["secret"] = rest
        elif word == "fault":
            state["fault"] = rest[0]
        print("ok", state["count"], flush=True)
    os._exit(0)


def main():
    import boto3
    from moto import mock_aws  # noqa: F401  (fails early where moto is too old)

    application = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
    server = make_server("127.0.0.1", 0, Wall(application), threaded=True, request_handler=Quiet)
    # The bucket is made behind the wall.
    behind = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{behind.server_port}",
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    for bucket in sys.argv[1:]:
        s3.create_bucket(Bucket=bucket)
    threading.Thread(target=listen, daemon=True).start()
    print(server.server_port, behind.server_port, flush=True)
    server.serve_forever()


main()
