"""Serves a WSGI app on a free port of loopback and prints the app's own address."""

from werkzeug.serving import make_server


def listen(app):
    server = make_server("127.0.0.1", 0, app)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
