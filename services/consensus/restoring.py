"""The log and membership of a member whose database is a restored backup.

The new log begins behind index `len(members)` of term 1, as etcd's does after the entries that bring the members in.
Nobody can be fed from the log alone then: whoever comes without the restored data is sent an image.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from quorate.consensus.bootstrap import check_names_and_urls, founders
from quorate.consensus.membership import Membership, Meta
from quorate.consensus.meta import MetaFiles
from quorate.consensus.segments import DIRECTORY_MODE
from quorate.consensus.wal import Wal
from quorate.node.config import Config

FIRST_TERM: Final = 1


def beginning(config: Config) -> Meta:
    """Of the member that `config` describes: the log begins behind `snapshot_index`. OperatorError as when a cluster is
    founded."""
    check_names_and_urls(config)
    members = founders(config)
    founded = Membership.founded(list(members.values()))
    index = len(members)
    own = next(member.id for member in members.values() if member.name == config.name)
    return Meta(own, replace(founded, index=index), index, FIRST_TERM)


def write_log(directory: Path, meta: Meta) -> None:
    """Make the log's directory with everything a node starts from; durable when this returns."""
    directory.mkdir(mode=DIRECTORY_MODE, parents=True)
    MetaFiles(directory).write(meta)
    Wal.create(directory, meta.membership.cluster_id, meta.member_id).close()
