"""The files of a new project, copied from another project or unpacked from an archive."""
