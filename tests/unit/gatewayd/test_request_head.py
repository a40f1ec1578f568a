"""What two readers of a head could understand differently is refused."""

import pytest

from gatewayd.http.request_head import HeadTooLarge, NoProxy, read_head
from llorch.errors import InvalidArgument

HOST = ("host", "localhost")


def test_path_and_query_stay_as_they_came() -> None:
    head = read_head("GET", "/v2/a%2Fb?c=%20&d", [HOST], ("127.0.0.1", 5))
    assert (head.raw_path, head.query) == ("/v2/a%2Fb", b"c=%20&d")


def test_a_list_may_come_in_several_lines() -> None:
    assert read_head("GET", "/", [HOST, ("accept", "a"), ("accept", "b")], None).headers["accept"] == "a, b"


@pytest.mark.parametrize("name", ["authorization", "content-length", "content-type", "host", "last-event-id", "origin"])
def test_what_has_one_value_may_not_have_two(name: str) -> None:
    assert read_head("GET", "/", [HOST, *[(name, "1")] * 2] if name != "host" else [HOST, HOST], None)
    with pytest.raises(InvalidArgument, match=f"two different values of {name}"):
        read_head("GET", "/", [HOST, (name, "1"), (name, "2")], None)


@pytest.mark.parametrize("length", ["-1", "+1", "1, 1", "", "0x1", "1.0", "²"])
def test_a_length_is_a_number_in_digits(length: str) -> None:
    with pytest.raises(InvalidArgument, match="Content-Length"):
        read_head("POST", "/", [HOST, ("content-length", length)], None)


def test_a_whole_url_names_the_host_itself() -> None:
    head = read_head("GET", "http://gpu-box.lan:8080/v2/state?x=1", [HOST], None)
    assert (head.raw_path, head.query, head.headers["host"]) == ("/v2/state", b"x=1", "gpu-box.lan:8080")
    assert read_head("GET", "https://gpu-box.lan", [HOST], None).raw_path == "/"


def test_there_is_no_proxy_here() -> None:
    with pytest.raises(NoProxy):
        read_head("CONNECT", "example.com:443", [HOST], None)


@pytest.mark.parametrize("headers", [[(f"x{number}", "y") for number in range(129)], [("x", "y" * 33_000)]])
def test_a_head_is_bounded_in_lines_and_bytes(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(HeadTooLarge):
        read_head("GET", "/", headers, None)
