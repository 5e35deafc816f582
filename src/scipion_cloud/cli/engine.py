"""Which batch system the jobs of a home go through: this machine's own queue, our Slurm, or the site's."""

from collections.abc import Mapping
from dataclasses import dataclass

from scipion_cloud.cluster.elastic import Elastic, ElasticCluster
from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.cluster.slurm_conf import NodeShape
from scipion_cloud.config import Config
from scipion_cloud.errors import Conflict
from scipion_cloud.jobs import Limits, backend_for
from scipion_cloud.jobs.away import Away
from scipion_cloud.jobs.systems import read_system, write_system
from scipion_cloud.provision import home
from scipion_cloud.provision.supervisor import ChildSpec
from scipion_cloud.sites.reach import batch_options
from scipion_cloud.sites.reading import read_sites

FOLDER = "slurm"  # below the home
SLURMD_STOP = 2.0  # s; it has nothing to save


@dataclass(frozen=True)
class Engine:
    """A batch system for the time of one `up`, and its programs if they are ours to run."""

    kind: str
    options: Mapping[str, str]
    slurm: PrivateSlurm | None = None
    elastic: ElasticCluster | None = None  # its nodes, if they come and go

    @classmethod
    def of(cls, config: Config, *, slurm: bool) -> "Engine":
        """With `slurm`, or if the home site has nodes that come and go, our own Slurm; else the home site's.

        Raises SetupError for a home whose path Slurm cannot bear, ConfigError for a wrong sites.toml.
        """
        site = read_sites(config).home
        if not (slurm or site.elastic):
            return cls(site.batch.value, {} if site.batch.value == "local" else batch_options(site))
        folder = config.home / FOLDER
        nodes = None
        if elastic := Elastic.of(site):
            nodes = ElasticCluster(folder, elastic)
            cluster = PrivateSlurm(folder, [], **nodes.for_slurm())
        else:
            limits = Limits.of_machine(config.cpus, config.memory_gb, config.max_queued, config.gpus)
            cluster = PrivateSlurm(folder, [NodeShape.of_machine(limits)])
        return cls("slurm", cluster.options, cluster, nodes)

    def prepare(self, config: Config) -> None:
        """Have the home's queue use it from now on, and write its configuration.

        Raises Conflict when jobs of another batch system live, and SetupError when Slurm is not installed.
        """
        if self.slurm:
            self.slurm.end_servers()
            self.slurm.prepare()
        switch(config, self.kind, self.options)

    def children(self, config: Config) -> list[ChildSpec]:
        """The programs to keep running, after `prepare`."""
        return [
            ChildSpec(
                daemon.name,
                daemon.argv,
                home.logs(config) / f"{daemon.name}.log",
                env=daemon.env,
                ready=daemon.ready,
                ready_within=120.0,
                stop_within=SLURMD_STOP if daemon.name.startswith("slurmd-") else 30.0,
            )
            for daemon in (self.slurm.daemons() if self.slurm else ())
        ]

    def clear(self, *, jobs: bool) -> None:
        """End what is left when its programs have ended: with `jobs`, also what these have started."""
        if self.slurm:
            self.slurm.stop(jobs=jobs)
        if self.elastic and jobs:
            self.elastic.provider().clear()


def switch(config: Config, kind: str, options: Mapping[str, str]) -> None:
    """Change the batch system of a home's queue. Raises Conflict while jobs of the present one live."""
    now = read_system(config.jobs)
    if now == (kind, dict(options)):
        return
    if (config.jobs / "queue.sqlite").exists():
        away = {job.id for job in Away(config.jobs).live()}
        live = [job for job in backend_for(config).list(limit=0) if job.id not in away]
        if live:
            before = "scipion-cloud up --slurm" if now[0] == "slurm" else "scipion-cloud up"
            raise Conflict(
                f"{len(live)} jobs of this home still wait or run in {_called(now[0])} and cannot go over to "
                f"{_called(kind)}. Start it as before ({before}), let them end there or end them with "
                "Ctrl-C, and then start it anew."
            )
    write_system(config.jobs, kind, options)


def _called(kind: str) -> str:
    return {"local": "this machine's own queue", "slurm": "Slurm", "sge": "Grid Engine"}[kind]
