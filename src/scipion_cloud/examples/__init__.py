"""Example data made here: ribosomes in ice, as movies whose drift is known or as particles."""

from scipion_cloud.examples.movies import MovieSpec, write_movies

__all__ = ["MovieSpec", "write_movies"]
