"""The side-by-side benchmark against real etcd."""
