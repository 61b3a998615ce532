"""The embedded broker: librdkafka's own, from the `confluent-kafka` wheel, in a child process.

Real protocol on a real loopback socket, nothing to install, up in a fraction of a second. It
keeps nothing: 5 MB a partition in memory, topics appear on first use with four partitions and
CreateTime, and a consumer group takes one member. For development and fast tests only.

    with EmbeddedBroker() as broker:
        Client(bootstrap=broker.bootstrap)

The child (`python -m anabranch.dev.embedded`) prints its address and lives until its stdin
ends, which the kernel sees to however the parent dies. So no broker is left behind.

librdkafka chooses the port itself. Where another is wanted, the child relays it: clients go there
first, and are then told of librdkafka's own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self

from anabranch.errors import BrokerUnavailable

__all__ = ["EmbeddedBroker", "listen"]

_HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 65_536
START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 5.0
ORPHAN_CHECK_S: Final = 1.0
_PRODUCER: Final = 0
"""RD_KAFKA_PRODUCER, the kind of client that a mock cluster hangs on."""


class EmbeddedBroker:
    """A broker for the time of a `with` block.

    Args:
        port: where clients find it; by default any that is free.

    Attributes:
        bootstrap: `host:port`, from `start` on.

    Raises (from `start` and `with`):
        BrokerUnavailable: the child did not come up, or the port is taken.
    """

    def __init__(self, port: int | None = None) -> None:
        self.bootstrap = ""
        self._port = port
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the child and wait for its address."""
        with ExitStack() as stack:
            listening = [stack.enter_context(listen(self._port))] if self._port else []
            handed_on = [listener.fileno() for listener in listening]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "anabranch.dev.embedded", *map(str, handed_on)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=handed_on,
                text=True,
                start_new_session=True,  # Ctrl-C is for the parent, which may still have to drain
            )
        self.bootstrap = self._read_address(self._process)
        if not self.bootstrap:
            self.stop()
            raise BrokerUnavailable(
                "the embedded broker did not start; is the package confluent-kafka intact?"
            )

    def stop(self) -> None:
        """End the child and wait for it; harmless when it has ended before."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()  # it keeps nothing, so there is nothing to finish
        process.communicate(timeout=STOP_TIMEOUT_S)

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.poll() is None

    async def ended(self) -> None:
        """Wait until the child has ended by itself: its end of the pipe closes."""
        if self._process is None or self._process.stdout is None:
            return
        loop, over, pipe = asyncio.get_running_loop(), asyncio.Event(), self._process.stdout
        loop.add_reader(pipe, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(pipe)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @staticmethod
    def _read_address(process: subprocess.Popen[str]) -> str:
        out = process.stdout
        if out is None or not select.select([out], [], [], START_TIMEOUT_S)[0]:
            return ""
        return out.readline().strip()


def main() -> None:
    """Run the broker, print its address, and end with stdin or the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, address = os.getppid(), _start_cluster()
    if len(sys.argv) > 1:
        address = _relay(socket.socket(fileno=int(sys.argv[1])), address)
    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    # A process forked off the parent may hold our stdin open: hence the look at the parent too.
    while os.getppid() == parent:
        if select.select([sys.stdin], [], [], ORPHAN_CHECK_S)[0] and not os.read(0, 4096):
            break
    os._exit(0)  # the cluster's threads have nothing worth waiting for


def listen(port: int) -> socket.socket:
    """
    Raises:
        BrokerUnavailable: somebody else does, or nobody may.
    """
    try:
        return socket.create_server((_HOST, port))
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
        raise BrokerUnavailable(
            f"port {port} of {_HOST} cannot be had: {why}; choose another with --port"
        ) from error


def _relay(listener: socket.socket, to: str) -> str:
    """Relay every connection to the broker, in a thread; the address to connect to."""
    host, _, port = to.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async def forever() -> None:
        server = await asyncio.start_server(serve, sock=listener)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(forever()), daemon=True).start()
    return f"{_HOST}:{listener.getsockname()[1]}"


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _start_cluster() -> str:
    """Start librdkafka's mock cluster (see its rdkafka_mock.h) and return its address.

    Through its C interface, because that alone can lift the mock's delay of three seconds before
    a group's first member gets its partitions. The extension module hands on the symbols of the
    library that it is linked to.
    """
    from confluent_kafka import cimpl

    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"log_level", b"0", None, ctypes.c_size_t(0))
    client = library.rd_kafka_new(_PRODUCER, conf, None, ctypes.c_size_t(0))
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), 1))
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    address: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
    return address.decode()


if __name__ == "__main__":
    main()
