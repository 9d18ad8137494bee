"""Power cuts at every write, sync and rename, and disks that fail: what recovers from what is left."""
