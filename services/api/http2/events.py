"""What a connection tells its host, in the order in which the client said it."""

from typing import Final

from quorate.api.http2.heads import RequestHead

CALL: Final = 0  # a whole unary call: its message; exactly one of respond, finish and reset is due
OPENED: Final = 1  # a call of any other path; its messages follow
MESSAGE: Final = 2  # one message of an opened call
HALF_CLOSED: Final = 3  # the client has sent its last message
CANCELLED: Final = 4  # the call is gone, by the client or by an error; nothing more is due

Event = tuple[int, int, RequestHead, bytes]
"""Kind, stream id, head of the request, message (empty unless CALL or MESSAGE)."""
