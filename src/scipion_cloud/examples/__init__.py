"""Example data made here: movies of ribosomes in ice whose drift is known."""

from scipion_cloud.examples.movies import MovieSpec, write_movies

__all__ = ["MovieSpec", "write_movies"]
