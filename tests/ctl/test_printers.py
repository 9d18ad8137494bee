"""What the output formats share."""

from quorate.ctl.printers import name_of
from quorate.proto import rpc_pb2


def test_a_value_without_a_name_is_shown_as_its_number() -> None:
    assert name_of(rpc_pb2.AlarmType, rpc_pb2.NOSPACE) == "NOSPACE"
    assert name_of(rpc_pb2.AlarmType, 125) == "125"
