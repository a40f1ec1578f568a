"""What one connection may take of the gateway: times in seconds, sizes in bytes. SECURITY.md lists them all."""

IDLE_S = 30.0
"""Without a request that is being served: for a TLS handshake and a preface, a head that trickles in, and what comes
between two requests.
"""

STALLED_S = 30.0
"""A client that takes nothing of what is ready for it for so long loses the stream, or the connection."""

GIVES_WAY_AFTER_S = 1.0
"""A client that takes nothing for so long loses its stream to another one, where all places are taken."""

LINGER_S = 2.0
"""A refusal is lost if the connection closes before all of the request was read: the client's kernel throws away what
came before the reset. So the rest of the request is read and dropped, for this long at most.
"""

LOOK_EVERY_S = 1.0
"""How often the server looks for connections whose time is over."""

HANDSHAKE_S = 10.0
"""Of TLS."""

READ_BYTES = 16 * 1024
"""Most that is taken from one connection before it is the turn of the others."""

HEAD_BYTES = 32 * 1024
HEADERS = 128
"""Lines of one request's head."""

BODY_AHEAD_BYTES = 64 * 1024
"""Of a body, or of requests that follow behind one that is being answered: what is kept before it is asked for."""

FRAMING_BYTES = 64 * 1024
"""What a body may be cut into chunks with, beyond its own size."""

SLICE_BYTES = 1024
"""What is read of one connection in one of its turns."""

HTTP2_SLICE_BYTES = 256
"""Of HTTP/2, but for the inside of a frame: a request's head may be 13 bytes there, and takes the gateway 0.1 ms."""

EVENTS_PER_SLICE = 256
"""Parts of a message that are read in one of a connection's turns."""

TURN_S = 0.001
"""In one turn of the loop, of one connection after the other: slices are read, and requests begin, for so long. The
largest step takes as long by itself.
"""

BEGINS_PER_TURN = 4
"""Requests. What each of them takes, up to 1 ms, comes after the turn."""

READS_OF_ONE = 8
READS_OF_ALL = 16
"""Requests that only read and wait for their answers to begin: of one connection, and of all connections. The others
wait their turn; a connection without one among these waits for no other connection. They are short, and what some
connections ask for at once must not have all others wait behind it at the orchestrator.
"""

READ_COUNTS_S = 0.5
"""Among those of all connections. One that takes longer waits for something else than its turn at the orchestrator: an
event stream that has nothing to say yet, or another machine. No further read waits for it. Where the orchestrator takes
as long, only those of one connection are bounded.
"""

BACKED_UP_BYTES = 64 * 1024
"""Of an answer: what waits for its client before more is made."""

UNSENT_BYTES = 64 * 2**20
"""Of all answers together. Beyond it, the connections that take nothing are ended, those with the most first."""

STREAMS = 100
REQUESTS = 10_000
"""On one connection of HTTP/2: at once, and in all; h2 remembers those that are over, 140 bytes each."""

HEADER_TABLE_BYTES = 4096
"""Of the answers' headers on one connection of HTTP/2; h2 would take the size that the client names, and gets slower
with it.
"""

FRAMES = 1000
FRAMES_PER_S = 100
"""Frames of HTTP/2 that ask for nothing, or undo what was asked for: how many at once, and how many a second."""
