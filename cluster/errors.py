"""The error of these scripts; upop_ray's own would load torch first, which a status need not wait for."""


class ClusterError(Exception):
    """Something the user can cure; one line with what is wrong and what to do."""
