"""A client SDK in one page: applies a slice, waits until it is ready, removes it. Python, over mutual TLS.

It has no .proto file and no Trunkline code: it asks the controller for its descriptors by reflection, generates stubs from
them, and works with those alone. What it can do, any gRPC client in any language can do.

    slice.py --controller 127.0.0.1:7443 --bundle DIR [--server-name NAME] --worker W1 --worker W2

Prints one line a step; ends with 0, or 1 and what was wrong.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import uuid

import grpc
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2 as reflection
from grpc_reflection.v1alpha import reflection_pb2_grpc as reflection_grpc
from grpc_status import rpc_status
from grpc_tools import protoc

PACKAGE = "trunkline.v1"
DEADLINE = 120  # seconds, for the slice to become ready or to be gone


def connect(address, bundle, server_name):
    """A channel that shows our certificate and checks the controller's name."""
    ca, cert, key = ((bundle / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
    options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    return grpc.secure_channel(address, credentials, options)


def ask(stub, **request):
    """One question to the reflection service."""
    answer = next(stub.ServerReflectionInfo(iter([reflection.ServerReflectionRequest(**request)])))
    if answer.HasField("error_response"):
        raise RuntimeError(f"reflection: {answer.error_response.error_message}")
    return answer


def descriptors(channel):
    """Names of the services, and every file that they need."""
    stub = reflection_grpc.ServerReflectionStub(channel)
    listed = ask(stub, list_services="").list_services_response.service
    services = sorted(s.name for s in listed if s.name.startswith(PACKAGE + "."))
    files, wanted = {}, []
    for service in services:
        wanted += ask(stub, file_containing_symbol=service).file_descriptor_response.file_descriptor_proto
    while wanted:
        file = descriptor_pb2.FileDescriptorProto.FromString(wanted.pop())
        if file.name in files:
            continue
        files[file.name] = file
        for dependency in file.dependency:
            if dependency not in files:
                wanted += ask(stub, file_by_filename=dependency).file_descriptor_response.file_descriptor_proto
    return services, files


def generate(files, folder):
    """Generates stubs from descriptors alone and imports them."""
    described = folder / "all.bin"
    described.write_bytes(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
    ours = sorted(name for name in files if name.startswith("trunkline/"))
    code = protoc.main(
        ["protoc", f"--descriptor_set_in={described}", f"--python_out={folder}", f"--grpc_python_out={folder}", *ours]
    )
    if code != 0:
        raise RuntimeError("protoc could not generate stubs from the controller's descriptors")
    sys.path.insert(0, str(folder))

    class Stubs:
        pass

    for part in ("slice", "watch", "resource", "fleet", "event"):
        setattr(Stubs, part, importlib.import_module(f"trunkline.v1.{part}_pb2"))
        if part != "resource":
            setattr(Stubs, part + "_rpc", importlib.import_module(f"trunkline.v1.{part}_pb2_grpc"))
    return Stubs


def violations(error):
    """Field violations of a google.rpc rich error: [(field, description)]."""
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Is(bad.DESCRIPTOR) and detail.Unpack(bad):
            found += [(v.field, v.description) for v in bad.field_violations]
    return found


def spec(stubs, name, workers):
    """Two VMs with internet on two workers, and a link between them."""
    s = stubs.slice
    vms = [
        s.VmSpec(name=vm, worker=worker, internet_enabled=True, data_interfaces_count=1)
        for vm, worker in zip(("left", "right"), (workers * 2)[:2])
    ]
    return s.SliceSpec(name=name, vms=vms, links=[s.LinkSpec(name="wire", ends=["left.eth1", "right.eth1"])])


def wait(stubs, channel, name, done):
    """Follows the status until `done(slice status or None)`; raises at the deadline."""
    watch = stubs.watch_rpc.WatchServiceStub(channel)
    last = None
    try:
        for answer in watch.WatchStatus(stubs.watch.WatchStatusRequest(slices=[name]), timeout=DEADLINE):
            last = next((s for s in answer.status.slices if s.name == name), None)
            if done(last):
                return last
    except grpc.RpcError as error:
        raise RuntimeError(f"waited {DEADLINE} s; last seen: {last}") from error
    raise RuntimeError(f"the watch ended; last seen: {last}")


def check(truth, words):
    """Says what holds, or stops the program with what does not."""
    if not truth:
        raise RuntimeError(f"does not hold: {words}")
    print(f"ok  {words}", flush=True)


def run(arguments, folder):
    channel = connect(arguments.controller, arguments.bundle, arguments.server_name)
    services, files = descriptors(channel)
    check({f"{PACKAGE}.{s}Service" for s in ("Slice", "Fleet", "Watch", "Event")} <= set(services), "reflection lists the services")
    stubs = generate(files, folder)
    api = stubs.slice_rpc.SliceServiceStub(channel)
    s = stubs.slice
    name = "sdk-" + uuid.uuid4().hex[:8]

    try:
        api.ApplySlices(s.ApplySlicesRequest(request_id=uuid.uuid4().hex, slices=[s.SliceSpec(name="../bad")]))
        check(False, "a bad name is refused")
    except grpc.RpcError as error:
        fields = [field for field, _ in violations(error)]
        check(error.code() is grpc.StatusCode.INVALID_ARGUMENT and "slices[0].name" in fields, "a bad name is refused by field")

    request = s.ApplySlicesRequest(request_id=uuid.uuid4().hex, slices=[spec(stubs, name, arguments.worker)], deploy=True)
    applied = api.ApplySlices(request)
    check(applied.generation > 0 and applied.term > 0 and applied.revision > 0, f"slice {name} is applied and deployed")
    check(api.ApplySlices(request) == applied, "the same request id answers the same and does nothing")

    ready = wait(stubs, channel, name, lambda status: status and status.state == stubs.resource.STATE_READY)
    check(ready.resources == ready.resources_ready > 0, f"{ready.resources} resources are ready")

    got = api.GetSlice(s.GetSliceRequest(name=name))
    vlan = got.links[0].vlan
    check(vlan not in (0, 400) and all(i.vlan == vlan for vm in got.vms for i in vm.interfaces if i.name == "eth1"), "the link's VLAN is on both its interfaces")
    check(all(vm.interfaces[0].vlan == 400 for vm in got.vms), "eth0 is on VLAN 400")

    deleted = api.DeleteSlice(s.DeleteSliceRequest(request_id=uuid.uuid4().hex, name=name, expected_revision=got.revision))
    check(deleted.generation > applied.generation, "the slice is deleted")
    wait(stubs, channel, name, lambda status: status is None)
    check(name not in [each.name for each in api.ListSlices(s.ListSlicesRequest()).slices], "nothing of it is left on any host")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controller", required=True, help="host:port")
    parser.add_argument("--bundle", required=True, type=pathlib.Path, help="folder with ca.pem, cert.pem, key.pem of an operator")
    parser.add_argument("--server-name", help="name in the controller's certificate, when it is not the host's")
    parser.add_argument("--worker", required=True, action="append", help="worker to place a VM on; give it twice")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(arguments, pathlib.Path(folder))
        except (RuntimeError, grpc.RpcError, OSError) as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
