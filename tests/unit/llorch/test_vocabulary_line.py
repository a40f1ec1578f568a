import socket

from llorch.vocabulary_line import HEAD, Kind, Said, packed, receive, send


def test_what_is_said_is_received_whole_and_in_its_order() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        said = [Said(Kind.QUESTION, b""), Said(Kind.ANSWER, b"x" * 10_000), Said(Kind.REFUSED, b"no")]
        for one in said:
            send(ours, one)
        assert [receive(theirs) for _ in said] == said


def test_the_end_of_the_line_is_the_end_also_within_a_message() -> None:
    whole = packed(Said(Kind.ANSWER, b"abc"))
    for length in range(len(whole)):
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                ours.sendall(whole[:length])
            assert receive(theirs) is None
    assert len(whole) == HEAD.size + 3
