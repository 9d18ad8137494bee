"""PROGRAM between launcher and supervisor: finds the founders of a cluster in DNS or in a discovery service."""
