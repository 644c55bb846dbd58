"""What a look at a request tells must be what HTTP's own parser finds in it."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.serving.refusing import plain_request

HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
LINES = st.sampled_from(
    [
        b"Content-Length: 5", b"content-length:0", b"Content-Length: 12 ", b"Content-Length: +5",
        b"Content-Length: 5,5",
        b"Content-Length : 5", b"X-Content-Length: 9", b"Host: a", b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"Connection: close", b"Connection: keep-alive", b"Upgrade: h2c", b"Accept: */*", b" folded: 1",
        b"A: \x00", b"A:",
        b"Inference-Header-Content-Length: 3", b"A: \xe9", b"\x0b: 1", b"A: 1\nContent-Length: 7",
    ]
)  # fmt: skip


@given(
    st.sampled_from([b"POST /predict", b"POST /predict?top_k=1", b"POST /v2/models/m/infer", b"GET /predict"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]),
    st.lists(LINES, max_size=6),
    st.binary(max_size=20),
)
def test_it_is_what_h11_finds(line: bytes, version: bytes, lines: list[bytes], body: bytes) -> None:
    data = b"\r\n".join([line + b" " + version, b"Host: b", *lines, b"", body])
    found = plain_request(data)
    if found is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data + bytes(found[1]) + b"GET / HTTP/1.1\r\nHost: next\r\n\r\n")
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError:
        assert lines.count(b"Host: a")  # more than one, which does not bear on where the request ends
        return
    assert isinstance(request, h11.Request)
    received = 0
    while isinstance(event := connection.next_event(), h11.Data):
        received += len(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert received == len(body) + found[1]
    assert connection.trailing_data[0].startswith(b"GET / HTTP/1.1\r\nHost: next")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\n", ("/predict", 5)),
        (HEAD + b"Content-Length: 5\r\n\r\nabc", ("/predict", 2)),
        (HEAD + b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nabcde", ("/predict", 0)),
        (b"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: 1\r\n\r\n", ("/v2/models/{name}/infer", 1)),
        (HEAD + b"Content-Length: 5\r\n\r\nabcdef", None),
        (HEAD + b"Content-Length: 5\r\n", None),
        (HEAD + b"\r\n", None),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", None),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", None),
        (HEAD + b"Content-Length: 5\r\nConnection: close\r\n\r\n", None),
        (HEAD + b"Content-Length: 5\r\n: a\r\n\r\n", None),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None),
        (b"POST /other HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None),
    ],
)
def test_what_is_plain(data: bytes, found: tuple[str, int] | None) -> None:
    assert plain_request(data) == found
