"""`python -m scipion_cloud.cli`, the same as `scipion-cloud`."""

from scipion_cloud.cli import main

main(prog_name="scipion-cloud")
