"""PROCESS api: the front door for clients, gRPC and JSON on one port."""
