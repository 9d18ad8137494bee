"""The names that the launcher, the supervisor and the services agree on: variables of the environment, files."""

from typing import Final

CONFIG_VARIABLE: Final = "QUORATE_CONFIG"  # the rendered settings
RUN_DIR_VARIABLE: Final = "QUORATE_RUN_DIR"  # directory of sockets, locks and the last log lines
RUN_LOCK_VARIABLE: Final = "QUORATE_RUN_LOCK"  # the descriptor of the lock on it, which the supervisor inherits
PYTHON_VARIABLE: Final = "QUORATE_PYTHON"  # the interpreter of the services
API_MORE_VARIABLE: Final = "QUORATE_API_MORE"  # number of api workers beyond the first
WORKER_VARIABLE: Final = "QUORATE_WORKER"  # which of several equal processes a service is
SUPERVISOR_PID_VARIABLE: Final = "QUORATE_SUPERVISOR_PID"  # the process whose end is the services' end
SUPERVISOR_FILE_VARIABLE: Final = "QUORATE_SUPERVISORD_CONF"  # another supervisord.conf, set by the operator

FATAL_FILE: Final = "fatal"  # in the run directory: the sentence of the service that cannot go on
SUPERVISOR_SOCKET: Final = "supervisor.sock"  # in the run directory; supervisord.conf names it too
RENDERED_FILE: Final = "config.json"  # in the run directory
LOCK_FILE: Final = "lock"  # in the run directory, locked while the node runs
RUN_LINK: Final = "run"  # in the data directory: link to the run directory
