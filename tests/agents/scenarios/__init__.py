"""What agents are made to do; each module has one scenario."""

from scenarios import (
    build_fails,
    lost_reply,
    newcomer,
    restart_while_waiting,
    task_outlives_agent,
)

MODULES = (build_fails, lost_reply, newcomer, restart_while_waiting, task_outlives_agent)
ALL = {module.SCENARIO.name: module.SCENARIO for module in MODULES}
