"""Servers of the tests: server.py MODE ADDRESS PORT. Prints `ready` when it listens."""

import asyncio
import base64
import hashlib
import resource
import sys

MODE, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
EVENTS = asyncio.Queue()


async def echo(reader, writer):
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()


async def first(reader, writer):
    writer.write(b"that is all")
    writer.write_eof()
    print((await reader.read()).decode(), flush=True)
    writer.close()


async def head_of(reader):
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = [line.split(": ", 1) for line in lines[1:] if line]
    return lines[0].split(" "), {name.lower(): value for name, value in headers}, lines[1:]


async def body_of(reader, headers):
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
    else:
        yield await reader.readexactly(int(headers.get("content-length", 0)))


async def frame_of(reader):
    start = await reader.readexactly(2)
    length = start[1] & 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    mask = await reader.readexactly(4)
    data = await reader.readexactly(length)
    long_mask = (mask * (length // 4 + 1))[:length]
    data = (int.from_bytes(data, "big") ^ int.from_bytes(long_mask, "big")).to_bytes(length, "big")
    return start[0] & 0xF, data


async def web_socket(reader, writer, headers):
    key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    while True:
        kind, data = await frame_of(reader)
        length = len(data)
        if length < 126:
            size = bytes([length])
        elif length < 1 << 16:
            size = b"\x7e" + length.to_bytes(2, "big")
        else:
            size = b"\x7f" + length.to_bytes(8, "big")
        writer.write(bytes([0x80 | kind]) + size + data)
        await writer.drain()


async def web(reader, writer):
    (method, path, _), headers, lines = await head_of(reader)
    if path == "/socket":
        return await web_socket(reader, writer, headers)
    if path == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(1000):
            writer.write(f"data: {number}\n\n".encode())
            await writer.drain()
            await EVENTS.get()
    if path == "/next":
        EVENTS.put_nowait(None)
        answer = b"ok\n"
    elif path == "/headers":
        answer = "\n".join(lines).encode()
    elif path == "/digest":
        digest = hashlib.sha256()
        async for piece in body_of(reader, headers):
            digest.update(piece)
        answer = digest.hexdigest().encode() + b"\n"
    elif path == "/large":
        answer = bytes(20 << 20)
    else:
        answer = b"hello\n"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
    await writer.drain()
    # As servers do that have something to write down first.
    await asyncio.sleep(0.01)
    writer.close()


async def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    serve = {"echo": echo, "first": first, "web": web}[MODE]
    server = await asyncio.start_server(serve, ADDRESS, PORT, backlog=1024, limit=1 << 22)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
