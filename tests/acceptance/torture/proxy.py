"""A TCP proxy that can be cut, as the network between a worker and its servers can."""

import asyncio
import contextlib
import threading

CHUNK = 64 * 1024


class Proxy:
    """Forwards connections on a port of its own to one on loopback, until `close`.

    `refuse` ends every connection and lets none in; `silence` keeps them and forwards
    nothing, as a network that drops packets does; `mend` undoes both.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """As if the servers were not there."""
        self._refusing = True
        self._call(self._drop())

    def silence(self) -> None:
        """As if everything sent were lost."""
        self._call(self._hold())

    def mend(self) -> None:
        """Forward again. What was held back meanwhile ends with its connection: long dead."""
        self._refusing = False
        self._call(self._let_go())

    def close(self) -> None:
        """Stop listening and drop all connections."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        self._writers.add(writer)
        onward = None
        try:
            if self._refusing:
                return
            there, onward = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(onward)
            both = [self._forward(reader, onward), self._forward(there, writer)]
            pumps = [asyncio.ensure_future(pump) for pump in both]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            return  # the server is away: so is this connection
        finally:
            for stream in filter(None, (writer, onward)):
                self._writers.discard(stream)
                stream.transport.abort()
            self._tasks.discard(asyncio.current_task())

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _hold(self) -> None:
        self._flows.clear()

    async def _let_go(self) -> None:
        if not self._flows.is_set():
            await self._drop()
            self._flows.set()

    async def _end(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
