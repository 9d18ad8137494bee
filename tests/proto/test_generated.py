"""The generated code is what the .proto files say, and the wire form is etcd's."""

from pathlib import Path

from quorate.proto import generate, health_pb2, rpc_pb2, v3election_pb2, v3lock_pb2


def test_generated_files_match_the_proto_files(tmp_path: Path) -> None:
    assert generate.compare(generate.compile_into(tmp_path), generate.HERE) == set()


def test_services_and_packages_are_etcds() -> None:
    modules = (rpc_pb2, v3lock_pb2, v3election_pb2, health_pb2)
    services = [service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    assert sorted(services) == [
        "etcdserverpb.Auth",
        "etcdserverpb.Cluster",
        "etcdserverpb.KV",
        "etcdserverpb.Lease",
        "etcdserverpb.Maintenance",
        "etcdserverpb.Watch",
        "grpc.health.v1.Health",
        "v3electionpb.Election",
        "v3lockpb.Lock",
    ]


def test_repeated_enum_filters_are_packed() -> None:
    create = rpc_pb2.WatchCreateRequest
    request = create(filters=[create.NODELETE, create.NOPUT])
    assert request.SerializeToString() == b"\x2a\x02\x01\x00"


def test_range_end_of_a_compare_has_number_64() -> None:
    assert rpc_pb2.Compare(range_end=b"z").SerializeToString() == b"\x82\x04\x01z"
