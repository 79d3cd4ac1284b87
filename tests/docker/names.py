"""A name server for tests, as Docker has one: it tells which replicas a service has at the moment."""

import socket
import struct
import threading
from typing import Self

HEADER = struct.Struct("!6H")
ANSWER = struct.Struct("!3HIH4s")
ANSWERED, REFERENCE_TO_QUESTION, ADDRESS, INTERNET = 0x8180, 0xC00C, 1, 1


class NameServer:
    """Answers over UDP from `addresses`: a name and its IPv4 addresses, changed at any time."""

    def __init__(self) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                asked, client = self.socket.recvfrom(512)
                self.socket.sendto(self._answer(asked), client)
            except OSError:
                return

    def _answer(self, asked: bytes) -> bytes:
        number, _, _, _, _, _ = HEADER.unpack_from(asked)
        labels, at = [], HEADER.size
        while asked[at]:
            labels.append(asked[at + 1 : at + 1 + asked[at]].decode())
            at += 1 + asked[at]
        question = asked[HEADER.size : at + 5]
        found = self.addresses.get(".".join(labels), [])
        answers = b"".join(
            ANSWER.pack(REFERENCE_TO_QUESTION, ADDRESS, INTERNET, 1, 4, socket.inet_aton(address)) for address in found
        )
        missing = 0 if found else 3
        return HEADER.pack(number, ANSWERED | missing, 1, len(found), 0, 0) + question + answers
