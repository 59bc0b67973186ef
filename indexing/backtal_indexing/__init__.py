"""Index runs over a library of videos: a client of the service."""
