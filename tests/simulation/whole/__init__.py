"""Whole clusters: all services of every node, their code unchanged, on simulated time, disks, links and processes."""
