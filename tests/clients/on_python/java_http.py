# client: Java's HttpClient (raw bytes); environment: project; wires: openai native anthropic google
# set: `URI.create("URL/v1/chat/completions")`
"""What `java.net.http.HttpClient` sends at its default: it offers HTTP/2 in clear text, which the proxy ignores."""

import json
import socket
from urllib.parse import urlsplit

VERSION = "17"


def check_offers_h2c(proxy):
    """The answer is plain HTTP/1.1, and the connection goes on."""
    ask = [{"role": "user", "content": "Repeat exactly: one two three"}]
    body = json.dumps({"model": proxy.model, "messages": ask}).encode()
    host = urlsplit(proxy.url).netloc
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Content-Length: {len(body)}\r\nHost: {host}\r\n"
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n"
        "User-Agent: Java-http-client/17.0.15\r\nContent-Type: application/json\r\nAuthorization: Bearer any\r\n\r\n"
    )
    name, _, port = host.partition(":")
    with socket.create_connection((name, int(port)), timeout=60) as connection, connection.makefile("rb") as answers:
        for _ in range(2):
            connection.sendall(head.encode() + body)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.split(b": ", 1) for line in iter(lambda: answers.readline().rstrip(), b""))
            found = {key.lower(): value for key, value in headers.items()}
            answer = json.loads(answers.read(int(found[b"content-length"])))
            assert answer["choices"][0]["message"]["content"].strip() == "one two three"
