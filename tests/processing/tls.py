"""Servers with TLS, and the authority that their certificate is from."""

import datetime
import shutil
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.place import free_port
from scripts.servers.postgresql import Postgresql
from scripts.servers.private import clean_environment
from scripts.servers.process import Process
from scripts.servers.rabbitmq import Rabbitmq
from scripts.servers.redis import Redis

NAME = "localhost"  # what the certificates are for
ADDRESS = "127.0.0.1"  # the same server, by what they are not for


class Authority:
    """Signs certificates; `path` holds its own one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {path.stem}")])
        own = self._begun(self.name, self.key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        signer = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        own = own.add_extension(usage, True).add_extension(signer, False)
        path.write_bytes(own.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certify(self, folder: Path) -> tuple[Path, Path]:
        """A certificate for NAME and its key, in `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        signed = self._begun(subject, key).add_extension(names, False).add_extension(signer, False)
        certificate, private = folder / "tls.crt", folder / "tls.key"
        certificate.write_bytes(signed.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        private.touch(mode=0o600)
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        begun = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        begun = begun.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        return begun.not_valid_after(now + datetime.timedelta(days=1))


class TlsPostgresql(Postgresql):
    """Takes connections with and without TLS, as PostgreSQL does: the client's `sslmode` decides."""

    authority: Authority

    def prepare(self) -> None:
        super().prepare()
        cluster = self.data / "cluster"
        for path in self.authority.certify(self.folder):
            shutil.copy(path, cluster / path.name)
            (cluster / path.name).chmod(0o600)
            if self.user():
                shutil.chown(cluster / path.name, self.user())
        with (cluster / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\nssl_cert_file = 'tls.crt'\nssl_key_file = 'tls.key'\n")


class TlsRabbitmq(Rabbitmq):
    """Listens on `tls_port`, too."""

    authority: Authority

    def prepare(self) -> None:
        super().prepare()
        self.state.setdefault("tls_port", free_port())
        self.remember()
        certificate, key = self.authority.certify(self.folder)
        with (self.folder / "rabbitmq.conf").open("a") as settings:
            settings.write(f"listeners.ssl.1 = 127.0.0.1:{self.state['tls_port']}\n")
            settings.write(f"ssl_options.cacertfile = {self.authority.path}\nssl_options.certfile = {certificate}\n")
            settings.write(f"ssl_options.keyfile = {key}\nssl_options.verify = verify_none\n")

    def tls_url(self, host: str) -> str:
        return f"amqps://ordered_work:{self.password}@{host}:{self.state['tls_port']}/%2F"


class TlsRedis(Redis):
    """Listens on `tls_port`, too."""

    authority: Authority

    def execute(self, log: IO[bytes]) -> Process:
        self.state.setdefault("tls_port", free_port())
        self.remember()
        certificate, key = self.authority.certify(self.folder)
        tls = ["--tls-port", str(self.state["tls_port"]), "--tls-cert-file", str(certificate)]
        tls += ["--tls-key-file", str(key), "--tls-auth-clients", "no"]
        command = [str(self.program()), str(self.folder / "redis.conf"), *tls]
        return self.spawn(command, log, clean_environment())

    def tls_url(self, host: str) -> str:
        return f"rediss://:{self.password}@{host}:{self.state['tls_port']}/0"


def at(url: str, host: str) -> str:
    """`url` with another host."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@{host}:{parts.port}").geturl()
