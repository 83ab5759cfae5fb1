"""What is outside, in a network of its own: servers for names, pages and plain bytes.

world.py CERTIFICATE FIRST SECOND: the two addresses of this machine.
"""
import http.server, socket, socketserver, ssl, struct, sys, threading, time

CERTIFICATE, FIRST, SECOND = sys.argv[1:]

NAMES = {
    'allowed.test': FIRST, 'other.test': FIRST, 'a.wild.test': FIRST, 'wild.test': FIRST,
    'elsewhere.test': SECOND, 'metadata.test': '169.254.169.254', 'loop.test': '127.0.0.1',
    'private.test': '10.9.9.9', 'zero.test': '0.0.0.0',
}


def answer(question, by_stream):
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    name, (kind,) = '.'.join(labels).lower(), struct.unpack('>H', question[at + 1:at + 3])
    asked = question[12:at + 5]
    records, code = [], 0
    if name == 'big.test' and kind == 16:
        records = [bytes([200]) + b'x' * 200 for _ in range(40)]
    elif name in NAMES and kind == 1:
        records = [socket.inet_aton(NAMES[name])]
    elif name in NAMES and kind == 28:
        records = [socket.inet_pton(socket.AF_INET6, '2001:db8::7')]
    elif name == 'slow.test':
        time.sleep(60)
    elif name not in NAMES and name != 'big.test':
        code = 3
    flags = 0x8400 | code
    if not by_stream and sum(map(len, records)) > 1200:
        flags, records = flags | 0x0200, []
    head = question[:2] + struct.pack('>HHHHH', flags, 1, len(records), 0, 0)
    rest = b''.join(b'\xc0\x0c' + struct.pack('>HHIH', kind, 1, 1, len(r)) + r for r in records)
    return head + asked + rest


class Quiet(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 4096

    def handle_error(self, request, client_address):
        pass


class Datagrams(socketserver.ThreadingMixIn, socketserver.UDPServer):
    daemon_threads, max_packet_size = True, 65535

    def handle_error(self, request, client_address):
        pass


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        body = ('hello from %s' % self.headers.get('Host')).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        length = int(self.headers.get('Content-Length', 0))
        read = len(self.rfile.read(length)) if length else pieces(self.rfile)
        self.headers.replace_header('Host', '%s after %d bytes' % (self.headers['Host'], read))
        self.do_GET()

    def log_message(self, *_):
        pass


def pieces(stream):
    """The length of a body that comes in pieces."""
    total = 0
    while length := int(stream.readline(), 16):
        total += len(stream.read(length))
        stream.readline()
    stream.readline()
    return total


def web_socket(stream, _):
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += stream.recv(1)
    stream.sendall(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n')
    while data := stream.recv(65536):
        stream.sendall(data)


def handler(work):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            work(self.request, self.client_address)
    return Handler


def whole(stream, length):
    data = b''
    while len(data) < length and (more := stream.recv(length - len(data))):
        data += more
    return data


def names_by_stream(stream, _):
    while len(length := whole(stream, 2)) == 2:
        reply = answer(whole(stream, struct.unpack('>H', length)[0]), True)
        stream.sendall(struct.pack('>H', len(reply)) + reply)


def echo(stream, _):
    while data := stream.recv(65536):
        stream.sendall(data)


def last_words(stream, _):
    """Hears everything, then says how much it was."""
    total = 0
    while data := stream.recv(65536):
        total += len(data)
    stream.sendall(b'%d bytes' % total)


def speaks_first(stream, _):
    stream.sendall(b'220 welcome\n')
    echo(stream, _)


def stalls(stream, _):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    time.sleep(600)


def pours(stream, _):
    chunk = b'x' * 65536
    for _ in range(16 * int(stream.recv(20))):
        stream.sendall(chunk)


def main():
    # Each address answers for itself.
    servers = []
    for own in (FIRST, SECOND):
        for port in (443, 7001):
            servers.append(Datagrams((own, port), handler(lambda r, peer: r[1].sendto(r[0], peer))))
        names = handler(lambda r, peer: r[1].sendto(answer(r[0], False), peer))
        servers.append(Datagrams((own, 53), names))
    servers += [
        Quiet(('0.0.0.0', 53), handler(names_by_stream)),
        Quiet(('0.0.0.0', 7000), handler(echo)),
        Quiet(('0.0.0.0', 7003), handler(last_words)),
        Quiet(('0.0.0.0', 7004), handler(speaks_first)),
        Quiet(('0.0.0.0', 7005), handler(stalls)),
        Quiet(('0.0.0.0', 7006), handler(pours)),
        Quiet(('0.0.0.0', 7007), handler(web_socket)),
        Quiet(('0.0.0.0', 80), Page),
        Quiet(('0.0.0.0', 8080), Page),
    ]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    for port in (443, 8443):
        secure = Quiet(('0.0.0.0', port), Page)
        # The handshake is the connection's own thread's.
        secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
        servers.append(secure)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print('ready', flush=True)
    sys.stdin.read()


main()
