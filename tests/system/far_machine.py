"""A remote site in one machine: its own Slurm, its own sshd with our door, its own Scipion at its own path.

Run as the program of a host (see `scipion_cloud.testing.network`), in whose own mounts it hides the home:

    far_machine.py FOLDER ADDRESS SOFTWARE HIDDEN...

SOFTWARE is shown at FOLDER/opt, and its old place and every HIDDEN folder are empty here. Its RELION aligns
one movie, and more once FOLDER/relion-3.1/go is there. When all is up, FOLDER/ready.json says how to get in.
"""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from scipion_site import relion_with_a_gate

from scipion_cloud.cluster.private import PrivateSlurm
from scipion_cloud.cluster.slurm_conf import NodeShape
from scipion_cloud.testing.servers.site_host import site_host


def main(folder: Path, address: str, software: Path, hidden: list[Path]) -> None:
    """Be that machine until somebody ends it."""
    opt = move_software(software, folder)
    for path in (software, *hidden):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    relion = relion_with_a_gate(opt / "scipion" / "software" / "em" / "relion-3.1", folder)
    slurm = PrivateSlurm(folder / "slurm", [NodeShape(2, 4.0)], interactive_cpus=0, constrain=False)
    slurm.start()
    options = [word for name, value in slurm.options.items() for word in ("--option", f"{name}={value}")]
    with site_host(folder / "host", address=address) as host:
        login = host.admit(folder / "area", "--batch", "slurm", *options)
        (folder / "known_hosts").write_text(f"[{address}]:{login.port} {host.server.host_key}\n")
        table = {
            "title": "Far away",
            "host": address,
            "port": login.port,
            "key_file": str(login.key),
            "known_hosts_file": str(folder / "known_hosts"),
            "area": str(login.area),
            "batch": "slurm",
            "software": ["relion"],
            "scipion": str(opt / "scipion-env" / "bin" / "python"),
            "scipion_home": str(opt / "scipion"),
            "env": {"RELION_HOME": str(relion)},
        }
        part = folder / "ready.part"
        part.write_text(json.dumps(table))
        part.rename(folder / "ready.json")
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()
    slurm.stop(grace=1)


def move_software(software: Path, folder: Path) -> Path:
    """Show the software elsewhere, with a configuration that says so."""
    opt, conf = folder / "opt", folder / "scipion.conf"
    opt.mkdir()
    subprocess.run(["mount", "--bind", software, opt], check=True)
    written = opt / "scipion" / "config" / "scipion.conf"
    conf.write_text(written.read_text().replace(str(software), str(opt)))
    subprocess.run(["mount", "--bind", conf, written], check=True)
    return opt


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), [Path(path) for path in sys.argv[4:]])
