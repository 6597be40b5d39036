"""A warifu runtime plugin in Python: what plugins/example is, without Go.

It keeps one JSON file for each target: {"env": {what the app reads}, "pushed":
{ours}}. Its config is {"dir": "/etc/apps"}.

The code of the contract is generated from plugins/pluginpb:

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python -m grpc_tools.protoc -I ../pluginpb --python_out=. --grpc_python_out=. \
        warifu/plugin/v1/common.proto warifu/plugin/v1/runtime.proto
    warifu plugin verify venv/bin/python plugin.py --config config.yaml

The server starts plugins without an environment, so it is configured with the
path venv/bin/python and this file as an argument, or with a script that has the
former in its first line.
"""

import base64
import datetime
import json
import os
import sys
import threading
import urllib.parse
from concurrent import futures

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import empty_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from warifu.plugin.v1 import common_pb2, runtime_pb2, runtime_pb2_grpc

INVALID = grpc.StatusCode.INVALID_ARGUMENT
STALE = grpc.StatusCode.FAILED_PRECONDITION
KINDS = ("worker", "container", "service")


class Runtime(runtime_pb2_grpc.RuntimeServicer):
    """The contract: plugins/pluginpb/warifu/plugin/v1/runtime.proto."""

    def __init__(self):
        self.dir = None
        self.lock = threading.Lock()  # held from reading a file to replacing it

    def Describe(self, request, context):
        return common_pb2.DescribeResponse(name="example-python", version="1.0.0")

    def Configure(self, request, context):
        try:
            config = json.loads(request.config_json or b"null")
        except ValueError:
            config = None
        if not isinstance(config, dict) or list(config) != ["dir"] or not os.path.isabs(str(config["dir"])):
            context.abort(INVALID, 'the config is {"dir": "/absolute/directory"}')
        self.dir = config["dir"]
        os.makedirs(self.dir, mode=0o700, exist_ok=True)
        return runtime_pb2.RuntimeConfigureResponse()

    def PushEnv(self, request, context):
        check(context, request)
        names_ok = all(n.isascii() and n.isidentifier() for n in request.env)
        if not request.digest or not names_ok:
            context.abort(INVALID, "no digest, or a name that no variable can have")
        path = self.path(context, request)
        with self.lock:
            file = read(context, path)
            was = file["pushed"] or {"generation": 0, "fence": 0, "digest": "", "env": {}}
            if request.generation < was["generation"] or request.fence < was["fence"]:
                context.abort(STALE, f"the file has {was['generation']} and {was['fence']}")
            if request.generation == was["generation"] and request.digest != was["digest"]:
                context.abort(INVALID, "this generation has another digest")
            now = status(path, file)
            if (request.generation, request.fence) == (was["generation"], was["fence"]) and now.state == runtime_pb2.Status.READY:
                return runtime_pb2.PushEnvResponse(status=now)  # it is there already
            if not context.is_active():
                context.abort(grpc.StatusCode.CANCELLED, "nobody waits for it any more")
            if any("\0" in value for value in request.env.values()):  # what is there goes on serving
                now.state = runtime_pb2.Status.FAILED
                now.diagnostic.CopyFrom(runtime_pb2.Diagnostic(message="a value holds a zero byte", remedy="change it"))
                return runtime_pb2.PushEnvResponse(status=now)
            others = {n: v for n, v in file["env"].items() if n not in was["env"]}
            file = {
                "env": others | dict(request.env),
                "pushed": {
                    "app": request.app, "kind": request.target.kind, "name": request.target.name,
                    "generation": request.generation, "fence": request.fence, "digest": request.digest,
                    "env": dict(request.env),
                },
            }
            write(path, file)
            return runtime_pb2.PushEnvResponse(status=status(path, file))

    def ObserveEnv(self, request, context):
        path = self.path(context, request)
        return runtime_pb2.ObserveEnvResponse(status=status(path, read(context, path)))

    def RemoveEnv(self, request, context):
        check(context, request)
        path = self.path(context, request)
        with self.lock:
            file = read(context, path)
            was = file["pushed"]
            if was:
                if request.generation < was["generation"] or request.fence < was["fence"]:
                    context.abort(STALE, f"the file has {was['generation']} and {was['fence']}")
                write(path, {"env": {n: v for n, v in file["env"].items() if n not in was["env"]}, "pushed": None})
        return runtime_pb2.RemoveEnvResponse()

    def ListTargets(self, request, context):
        answer = runtime_pb2.ListTargetsResponse()
        for name in sorted(os.listdir(self.dir)):
            if not name.endswith(".json"):
                continue
            was = read(context, os.path.join(self.dir, name))["pushed"]
            if was and request.app in ("", was["app"]):
                answer.targets.add(app=was["app"], target=common_pb2.Target(kind=was["kind"], name=was["name"]))
        return answer

    def path(self, context, request):
        """The target's file. No name can leave the directory."""
        target = request.target
        parts = [request.app, target.kind, target.name]
        name = ",".join(urllib.parse.quote(part, safe="") for part in parts) + ".json"
        if target.kind not in KINDS or not target.name or not request.app or len(name) > 200:
            context.abort(INVALID, "no app or target, or too long a name for a file")
        return os.path.join(self.dir, name)


def check(context, request):
    if request.generation < 1 or request.fence < 0:
        context.abort(INVALID, "the generation or fence is out of range")


def read(context, path):
    try:
        with open(path, encoding="utf-8") as f:
            file = json.load(f)
            return {"env": file["env"], "pushed": file["pushed"]}
    except FileNotFoundError:
        return {"env": {}, "pushed": None}
    except (ValueError, KeyError, TypeError):  # whose texts may quote the file
        context.abort(grpc.StatusCode.UNAVAILABLE, f"{path} is no file of ours: correct or remove it")


def write(path, file):
    """Replaces the file in one step: a reader or a crash finds old or new."""
    with open(os.open(path + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as aside:
        json.dump(file, aside)
        aside.flush()
        os.fsync(aside.fileno())
    os.rename(path + ".new", path)


def status(path, file):
    """Compares what is there with what was pushed."""
    was = file["pushed"]
    st = runtime_pb2.Status(location=path, present=bool(was), state=runtime_pb2.Status.FAILED)
    if was:
        st.accepted_generation, st.digest = was["generation"], was["digest"]
        if all(file["env"].get(n) == v for n, v in was["env"].items()):
            st.state, st.serving_generation, st.instances = runtime_pb2.Status.READY, was["generation"], 1
            return st
    st.diagnostic.message, st.diagnostic.remedy = "the file lacks what was pushed", "apply the app again"
    st.diagnostic.retryable = True
    return st


# What follows is what Go plugins get from plugins.ServeRuntime.


def certificate():
    """A key for this start and its certificate, as the handshake wants it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1)).not_valid_after(now + datetime.timedelta(days=10000))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    der = base64.b64encode(cert.public_bytes(serialization.Encoding.DER)).decode().rstrip("=")
    return private, cert.public_bytes(pem), der


def serve(runtime):
    if "WARIFU_PLUGIN" not in os.environ:
        sys.exit("This is a plugin of warifu: the server starts it.")
    private, public, der = certificate()
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=40),
        options=[("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)],
    )
    runtime_pb2_grpc.add_RuntimeServicer_to_server(runtime, server)
    alive = health.HealthServicer()
    alive.set("plugin", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    leave = threading.Event()

    def shutdown(request, context):
        leave.set()
        return empty_pb2.Empty()

    handler = grpc.unary_unary_rpc_method_handler(
        shutdown, request_deserializer=empty_pb2.Empty.FromString, response_serializer=empty_pb2.Empty.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": handler}),))
    socket = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "plugin")
    # Only who has the key to this certificate gets in: the server that started us.
    host = os.environ["PLUGIN_CLIENT_CERT"].encode()
    server.add_secure_port("unix:" + socket, grpc.ssl_server_credentials([(private, public)], host, require_client_auth=True))
    server.start()
    print(f"1|1|unix|{socket}|grpc|{der}", flush=True)
    sys.stdout = sys.stderr  # nothing else may be printed there
    parent = os.getppid()
    while not leave.wait(0.5) and os.getppid() == parent:  # a killed server leaves us another parent
        pass
    server.stop(grace=1).wait()


if __name__ == "__main__":
    serve(Runtime())
