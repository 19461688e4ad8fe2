"""A broker that asks who is there: passwords (SASL/PLAIN), certificates (TLS), and its own authorizer's rights.

A second, open listener on loopback is for whoever prepares a test.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.support.kafka import Broker, free_port

PASSWORDS = {"gateway": "g-secret", "intake": "i-secret", "topics": "t-secret"}
SETTLE_SECONDS = 20.0

LISTENERS = {"PASSWORD": "SASL_PLAINTEXT", "TLS": "SSL", "MUTUAL": "SSL", "LYING": "PLAINTEXT"}


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM: an authority, and a certificate with its key that it has signed for 127.0.0.1 and localhost."""

    authority: Path
    certificate: Path
    key: Path
    both: Path
    """Key and certificate in one, as the broker wants them."""


def make_certificates(folder: Path, name: str = "broker") -> Certificates:
    """Return new certificates in a folder, made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    ca_key, authority = folder / "ca.key", folder / "ca.pem"
    key, request, certificate = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.pem"
    _openssl("req", "-x509", *NEW_KEY, ca_key, "-out", authority, "-days", "2", "-subj", f"/CN={folder.name} authority")
    _openssl("req", *NEW_KEY, key, "-out", request, "-subj", f"/CN={name}")
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    signing = ("-CA", authority, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", names)
    _openssl("x509", "-req", "-in", request, "-out", certificate, *signing)
    both = folder / f"{name}.both.pem"
    both.write_text(key.read_text() + certificate.read_text() + authority.read_text())
    return Certificates(authority, certificate, key, both)


NEW_KEY = ("-newkey", "rsa:2048", "-noenc", "-keyout")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class SecuredBroker(Broker):
    """A broker with a listener of each kind: `servers` wants a password, the others are told below."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        users = " ".join(f'user_{name}="{password}"' for name, password in PASSWORDS.items())
        login = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        properties = {
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.password.plain.sasl.jaas.config": login,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": certificates.both,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": certificates.authority,
            "listener.name.mutual.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        super().__init__(directory, properties=properties, listeners=LISTENERS)
        lying = f"LYING://{self.at('LYING')}"
        told = str(self._properties["advertised.listeners"])
        self._properties["advertised.listeners"] = told.replace(lying, f"LYING://127.0.0.1:{free_port()}")

    @property
    def servers(self) -> str:
        """Return what clients with a password connect to."""
        return self.at("PASSWORD")

    def at(self, listener: str) -> str:
        """Return the servers of a listener.

        OPEN lets all in, and they may do all; TLS has a certificate, MUTUAL wants one too; LYING answers, and sends its
        clients to where nobody does.
        """
        return self.address(None if listener == "OPEN" else listener)


def as_user(name: str, password: str | None = None) -> dict[str, Any]:
    """Return the properties of a client that says who it is."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": PASSWORDS[name] if password is None else password,
    }


class Right(NamedTuple):
    """One operation on one resource: a topic by its name, or the cluster (`kafka-cluster`)."""

    operation: str
    resource: str
    name: str


def _binding(user: str, right: Right) -> AclBinding:
    kind = {"topic": ResourceType.TOPIC, "cluster": ResourceType.BROKER}[right.resource]
    operation = AclOperation[right.operation.upper()]
    who = f"User:{user}"
    return AclBinding(kind, right.name, ResourcePatternType.LITERAL, who, "*", operation, AclPermissionType.ALLOW)


async def grant(broker: SecuredBroker, user: str, rights: Iterable[Right]) -> None:
    """Give a user exactly these rights; returns when the broker shows them."""
    admin = AdminClient({"bootstrap.servers": broker.at("OPEN")})
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{user}", None, AclOperation.ANY, AclPermissionType.ANY
    )
    await asyncio.wrap_future(admin.delete_acls([every])[every])
    wanted = [_binding(user, right) for right in rights]
    if wanted:
        await asyncio.gather(*map(asyncio.wrap_future, admin.create_acls(wanted).values()))
    async with asyncio.timeout(SETTLE_SECONDS):
        while len(await asyncio.wrap_future(admin.describe_acls(every))) != len(set(wanted)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def options_of(properties: Mapping[str, Any]) -> list[str]:
    """Return properties as `--set` takes them."""
    return [f"kafka.{name}={value}" for name, value in properties.items()]
