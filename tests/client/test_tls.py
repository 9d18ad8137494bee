"""TLS of a connection, without a server."""

import pytest

from quorate.client import EtcdError, TlsFiles


@pytest.mark.parametrize("target", ["localhost", "unix:/run/node.sock", "[::1]"])
def test_who_is_to_be_trusted_blindly_needs_a_port(target: str) -> None:
    with pytest.raises(EtcdError, match="missing port in address"):
        TlsFiles(skip_verify=True).trusting(target)
