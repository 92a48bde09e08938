"""A client written against the API alone: what it knows of the messages it learns from the server's reflection.

client.py HOST:PORT BUNDLE

It makes stubs from the reflected files, applies and deploys a slice, follows its status until it is ready, sees a wrong
slice refused, and removes everything again. Every step is one line of JSON on standard output.
"""

import importlib
import json
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

LIMIT = 60.0
SLICE = "from-python"


def say(step, **facts):
    print(json.dumps({"step": step, **facts}), flush=True)


def connect(endpoint, bundle):
    read = lambda name: (bundle / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("key.pem"), read("cert.pem"))
    return grpc.secure_channel(endpoint, credentials)


def reflected_files(channel):
    """Every file that the server's own services need, each after those it imports."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = sorted(name for name in database.get_services() if name.startswith("trunkline."))
    files = {}

    def add(file):
        if file.name not in files:
            for name in file.dependency:
                add(database.FindFileByName(name))
            files[file.name] = file

    for service in services:
        add(database.FindFileContainingSymbol(service))
    say("reflected", services=services)
    return list(files.values())


def make_stubs(files, folder):
    descriptors = folder / "descriptors.bin"
    descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString())
    ours = [file.name for file in files if not file.name.startswith("google/")]
    arguments = ["protoc", f"--descriptor_set_in={descriptors}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + ours) != 0:
        sys.exit("protoc could not make stubs from what the server reflected")
    sys.path.insert(0, str(folder))


def module(name):
    return importlib.import_module(f"trunkline.v1.{name}")


def follow_until_ready(channel):
    watch, watch_grpc, resource = module("watch_pb2"), module("watch_pb2_grpc"), module("resource_pb2")
    stub = watch_grpc.WatchServiceStub(channel)
    for answer in stub.WatchStatus(watch.WatchStatusRequest(slices=[SLICE]), timeout=LIMIT):
        for status in answer.status.slices:
            if status.name == SLICE and status.state == resource.STATE_READY:
                return status
    sys.exit("the watch ended before the slice was ready")


def refused(stub, messages):
    wrong = messages.SliceSpec(name="no good", vms=[messages.VmSpec(name="a/b")])
    try:
        stub.ApplySlices(messages.ApplySlicesRequest(request_id=str(uuid.uuid4()), slices=[wrong]), timeout=LIMIT)
    except grpc.RpcError as error:
        details = [key for key, _ in error.trailing_metadata() if key == "grpc-status-details-bin"]
        return error.code().name, len(details)
    return "OK", 0


def await_gone(stub, messages):
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        names = [status.name for status in stub.GetStatus(messages.GetStatusRequest(), timeout=LIMIT).slices]
        if SLICE not in names:
            return
        time.sleep(0.1)
    sys.exit("the slice did not go away")


def main():
    endpoint, bundle = sys.argv[1], pathlib.Path(sys.argv[2])
    channel = connect(endpoint, bundle)
    with tempfile.TemporaryDirectory() as folder:
        make_stubs(reflected_files(channel), pathlib.Path(folder))
        messages = module("slice_pb2")
        stub = module("slice_pb2_grpc").SliceServiceStub(channel)

        vms = [messages.VmSpec(name=name, worker=worker, data_interfaces_count=1) for name, worker in (("one", "w1"), ("two", "w2"))]
        spec = messages.SliceSpec(name=SLICE, vms=vms, links=[messages.LinkSpec(ends=["one.eth1", "two.eth1"])])
        request = messages.ApplySlicesRequest(request_id=str(uuid.uuid4()), slices=[spec], deploy=True)
        applied = stub.ApplySlices(request, timeout=LIMIT)
        again = stub.ApplySlices(request, timeout=LIMIT)
        say("applied", revision=applied.revision, generation=applied.generation, again=again.revision)

        status = follow_until_ready(channel)
        say("ready", resources=status.resources, resources_ready=status.resources_ready)

        code, details = refused(stub, messages)
        say("refused", code=code, details=details)

        stub.DeleteSlice(messages.DeleteSliceRequest(request_id=str(uuid.uuid4()), name=SLICE), timeout=LIMIT)
        await_gone(stub, messages)
        say("removed")


main()
