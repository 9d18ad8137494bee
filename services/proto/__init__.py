"""etcd's public API as protobuf definitions and the code generated from them."""
