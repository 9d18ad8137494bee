"""`alarm`: list and disarm."""

import click

from quorate.client import methods
from quorate.client.aio import AsyncClient
from quorate.ctl.commands import Group, command
from quorate.ctl.failures import bad_arguments
from quorate.ctl.settings import Settings
from quorate.proto import rpc_pb2 as rpc


@click.group(cls=Group)
def alarm() -> None:
    """Alarm related commands."""


@command("", name="list")
def list_(settings: Settings, words: tuple[str, ...]) -> None:
    """List all alarms."""
    if words:
        raise bad_arguments("alarm list command accepts no arguments")
    printer = settings.printer()
    printer.alarms(settings.run(lambda client: client.call(methods.ALARM, rpc.AlarmRequest())))


@command("")
def disarm(settings: Settings, words: tuple[str, ...]) -> None:
    """Disarm all alarms."""
    if words:
        raise bad_arguments("alarm disarm command accepts no arguments")
    printer = settings.printer()
    printer.alarms(settings.run(_disarm_all))


async def _disarm_all(client: AsyncClient) -> rpc.AlarmResponse:
    disarmed = rpc.AlarmResponse()
    for found in (await client.call(methods.ALARM, rpc.AlarmRequest())).alarms:
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, memberID=found.memberID, alarm=found.alarm)
        disarmed.alarms.extend((await client.call(methods.ALARM, request)).alarms)
    return disarmed


alarm.add_command(list_)
alarm.add_command(disarm)
