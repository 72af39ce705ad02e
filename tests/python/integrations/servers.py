"""Real servers of the tests, each in a thread, on a free port of the loopback interface."""

import contextlib
import socketserver
import threading
import wsgiref.simple_server

WAIT_SECONDS = 60


class _ThreadingServer(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A server that handles each request in a thread of its own, and waits for the threads at its end."""

    daemon_threads = False


class _QuietHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_args):
        pass


@contextlib.contextmanager
def wsgi_server(application):
    """Serve a WSGI application, and yield its address."""
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, application, server_class=_ThreadingServer, handler_class=_QuietHandler
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(WAIT_SECONDS)
        server.server_close()
        assert not thread.is_alive()


@contextlib.contextmanager
def asgi_server(application):
    """Serve an ASGI application with uvicorn, and yield its address."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            ready.set()

    ready = threading.Event()
    server = Server(uvicorn.Config(application, port=0, log_level="error", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
