"""The JSON of /v1."""

import base64
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from quorate.proto import kv_pb2


class Pair(BaseModel):
    """A key with its value and history counters."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "key": "greeting",
                "value": "hello",
                "create_revision": 2,
                "mod_revision": 7,
                "version": 3,
                "encoding": "text",
            }
        }
    )

    key: str = Field(description="The key; base64 where `encoding` says so.")
    value: str | None = Field(None, description="The value; base64 where `encoding` says so. Missing with keys_only.")
    create_revision: int = Field(description="Revision at which the key was created last.")
    mod_revision: int = Field(description="Revision of the last change; the ETag.")
    version: int = Field(description="Changes since the key was created.")
    lease: str | None = Field(None, description="Lease the key is attached to, hexadecimal.")
    encoding: str = Field(description="`text`, or `base64` where key or value is not UTF-8.")

    @classmethod
    def of(cls, kv: kv_pb2.KeyValue, without_value: bool = False) -> "Pair":
        """The pair as text if all of it is, otherwise as base64."""
        try:
            key, value, encoding = kv.key.decode(), kv.value.decode(), "text"
        except UnicodeDecodeError:
            key, value = (base64.b64encode(part).decode() for part in (kv.key, kv.value))
            encoding = "base64"
        return cls(
            key=key,
            value=None if without_value else value,
            create_revision=kv.create_revision,
            mod_revision=kv.mod_revision,
            version=kv.version,
            lease=f"{kv.lease % 2**64:x}" if kv.lease else None,
            encoding=encoding,
        )


class Page(BaseModel):
    """Keys in byte order."""

    keys: list[Pair] = Field(description="The keys of this page.")
    revision: int = Field(description="Revision the page was read at.")
    next: str | None = Field(None, description="Cursor of the following page; missing on the last one.")


class Stored(BaseModel):
    """Outcome of a PUT."""

    key: str = Field(description="The key.", examples=["greeting"])
    mod_revision: int = Field(description="Revision of this change; the new ETag.", examples=[7])
    created: bool = Field(description="The key did not exist before.")


class Deleted(BaseModel):
    """Outcome of a DELETE."""

    deleted: int = Field(description="Number of keys deleted.", examples=[1])
    revision: int = Field(description="Revision of the store after the change.", examples=[8])


class Error(BaseModel):
    """Why a request failed, in the form of the JSON gateway."""

    error: str = Field(description="The text.", examples=["etcdserver: key is not provided"])
    code: int = Field(description="The gRPC status code.", examples=[3])
    message: str = Field(description="The same text.", examples=["etcdserver: key is not provided"])


VALUE_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "The value, byte for byte.",
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": "hello"},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
