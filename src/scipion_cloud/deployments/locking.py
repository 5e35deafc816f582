"""Getting the lock of a project."""

import socket
from functools import partial

from scipion_cloud.deployments.context import Context, Ended
from scipion_cloud.deployments.states import Exit
from scipion_cloud.deployments.tasks import Stopped
from scipion_cloud.deployments.troubles import advice
from scipion_cloud.deployments.trying import try_on
from scipion_cloud.errors import Locked
from scipion_cloud.sync.lease import Lease, LockInfo, acquire, take_over


def lock(context: Context) -> Lease:
    """The lease of the project, renewing itself. Tries on while the storage does not answer.

    Raises Ended if somebody else has it open or the storage refuses, Stopped if the agent was told to stop.
    """
    settings = context.settings
    parameters = {"work": str(settings.work)}
    if settings.deadline is not None:
        parameters["deadline"] = settings.deadline.isoformat()

    def on_wait(holder: LockInfo) -> None:
        context.board.set(message=f"Waiting for the end of another lock. {holder.describe()}")

    contend = partial(take_over, force=True, reason=settings.take_over) if settings.take_over else acquire
    contend = partial(
        contend,
        settings.storage,
        deployment=context.session.deployment,
        host=socket.gethostname(),
        user=settings.user,
        parameters=parameters,
        ttl=settings.lease_ttl,
        trusted=settings.trust_lock,
        on_wait=on_wait,
    )
    try:
        lease = try_on(context, contend, "lock", stop=context.closing, undo=Lease.release)
    except Stopped:
        raise
    except Locked as e:
        raise Ended(str(e), Exit.LOCKED) from e
    except Exception as e:
        raise Ended(advice(e, settings.work), Exit.NOT_READY) from e
    lease.start()
    return lease
