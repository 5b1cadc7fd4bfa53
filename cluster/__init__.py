"""Clusters to run sweeps on: one of several nodes on this machine, and files for clouds, Kubernetes and Slurm."""
