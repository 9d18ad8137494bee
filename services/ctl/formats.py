"""Which printer writes which output format; a format is imported when it is asked for."""

from __future__ import annotations

from quorate.ctl.failures import BAD_FEATURE, Failure
from quorate.ctl.printers import Printer, Protobuf


def choose(name: str, hex_wanted: bool) -> Printer:
    """The printer of a format; Failure for a name that is none."""
    match name:
        case "simple":
            from quorate.ctl.print_simple import Simple

            return Simple(hex_wanted)
        case "json":
            from quorate.ctl.print_json import Json

            return Json(hex_wanted)
        case "fields":
            from quorate.ctl.print_fields import Fields

            return Fields(hex_wanted)
        case "table":
            from quorate.ctl.print_table import Table

            return Table()
        case "protobuf":
            return Protobuf()
        case _:
            raise Failure("unsupported output format", BAD_FEATURE)
