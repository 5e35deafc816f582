"""Jobs that Scipion has started by itself, from its desktop: no row in the database tells of them."""

from scipion_cloud.jobs import JobBackend, JobId
from scipion_cloud.model import LIVE_RUNS
from scipion_cloud.records.models import Project


def protocols(project: Project, backend: JobBackend) -> list[JobId]:
    """The live ones in a project, also those that compute elsewhere and bring their results here.

    A web tool's own jobs are not among them, but what it has sent away is. Raises JobError.
    """
    runs = set(project.runs.filter(state__in=LIVE_RUNS).values_list("job_id", flat=True))
    folder = str(project.path)
    return [job.id for job in backend.list(limit=0) if job.cwd == folder and job.id not in runs]
