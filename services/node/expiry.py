"""How long the certificates in use are still valid: days for the metrics, and a warning in the log before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from quorate.node import logs
from quorate.node.certificates import load
from quorate.node.tls import TlsFiles

log = logs.named("tls")

WARN_BEFORE: Final = timedelta(days=30)
WARN_FRACTION: Final = 3  # of a short certificate's life the last third
LOOK_EVERY_S: Final = 24 * 3600.0


class Expiry(Collector):
    """The certificates of one side of this process; a collector for Prometheus."""

    def __init__(self, side: str, files: TlsFiles) -> None:
        named = (files.cert_file, files.client_cert_file, files.trusted_ca_file)
        self._side = side
        self._paths = [path for path in dict.fromkeys(named) if path]

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not read files."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Days left of each file's first certificate, negative when it has expired."""
        family = GaugeMetricFamily(
            "quorate_certificate_days_left",
            "Days until a certificate in use expires.",
            labels=["side", "file"],
        )
        now = datetime.now(UTC)
        for path in self._paths:
            certificate = _read(path)
            if certificate is not None:
                left = certificate.not_valid_after_utc - now
                family.add_metric([self._side, path], round(left / timedelta(days=1), 3))
        yield family

    def warn(self, now: datetime | None = None) -> None:
        """A line for each certificate that ends soon or has ended."""
        moment = now or datetime.now(UTC)
        for path in self._paths:
            certificate = _read(path)
            if certificate is None:
                continue
            ends, life = (
                certificate.not_valid_after_utc,
                certificate.not_valid_after_utc - certificate.not_valid_before_utc,
            )
            fields = {"side": self._side, "file": path, "not-after": ends.isoformat()}
            if ends <= moment:
                log.error("certificate has expired", **fields)
            elif ends - moment < min(WARN_BEFORE, life / WARN_FRACTION):
                log.warn("certificate expires soon", days_left=(ends - moment).days, **fields)

    async def watch(self) -> None:
        """Warn now and once a day, until cancelled."""
        while True:
            self.warn()
            await asyncio.sleep(LOOK_EVERY_S)


def _read(path: str) -> x509.Certificate | None:
    """The first certificate of a file; None while there is none to be read, as in the middle of a rotation."""
    try:
        return load(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
